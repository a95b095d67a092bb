"""Tables: columns, their units, splits, and errors that say what is wrong."""

import numpy as np
import pandas
import pytest

from sgm.data import Table

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


FRAME = pandas.DataFrame(
    {"period": RNG.uniform(1, 9, 60), "mass": 1e-6 * RNG.normal(2, 1, 60), "flux": 1e6 * RNG.normal(size=60)}
)


class TestTable:
    def test_columns_are_examples_and_conditions(self):
        data = Table(FRAME, params=("period",), held_out=0.0)
        x, fields = data.rows("train", 0, 60)
        assert data.shape == (2,) and data.conditioning.params == 1
        np.testing.assert_allclose(x, FRAME[["mass", "flux"]].to_numpy(np.float32), rtol=1e-6)
        np.testing.assert_allclose(fields["params"], FRAME[["period"]].to_numpy(np.float32), rtol=1e-6)
        assert Table(FRAME, columns="mass").shape == (1,)

    @pytest.mark.parametrize("suffix", ["csv", "CSV", "parquet"])
    def test_a_file_is_a_table(self, tmp_path, suffix):
        path = tmp_path / f"table.{suffix}"
        FRAME.to_csv(path, index=False) if suffix.lower() == "csv" else FRAME.to_parquet(path)
        (x, fields), (expected, others) = (
            Table(source, params=("period",)).rows("train", 0, 9) for source in (str(path), FRAME)
        )
        np.testing.assert_allclose(x, expected, rtol=1e-6)
        np.testing.assert_allclose(fields["params"], others["params"], rtol=1e-6)

    @pytest.mark.parametrize(
        ("frame", "options", "message"),
        [
            (FRAME, {"columns": ("mas",)}, "there is no column 'mas', only period, mass, flux"),
            (FRAME.assign(kind="red"), {}, "column 'kind' holds no numbers"),
            (
                FRAME.assign(kind=pandas.Categorical(["a", "b"] * 30)),
                {},
                r"column 'kind' holds no numbers \(dtype category",
            ),
            (FRAME.assign(flag=np.arange(60) % 2), {}, "column 'flag' has only the whole values 0, 1, as categories"),
            (FRAME.assign(zero=0.0), {}, r"column 'zero' is constant \(= 0\)"),
            (FRAME.assign(mass=FRAME.mass.where(FRAME.mass > 1e-6)), {}, "column 'mass' has entries that are missing"),
            (FRAME, {"columns": ("mass", "mass")}, "column 'mass' is there twice, or asked for twice"),
            (FRAME, {"columns": ("mass", "flux"), "params": "flux"}, "column 'flux' is there twice, or asked for"),
            (FRAME[["mass", "flux", "mass"]], {}, "column 'mass' is there twice"),
            (FRAME, {"columns": ()}, "columns is empty"),
            (FRAME, {"columns": []}, "columns is empty"),
            (FRAME, {"params": ["period", "mass", "flux"]}, "all columns are params; leave one or more"),
        ],
    )
    @pytest.mark.usefixtures("types_unchecked")
    def test_what_no_model_can_be_trained_on_is_named(self, frame, options, message):
        with pytest.raises(ValueError, match=message):
            Table(frame, **options)

    @pytest.mark.usefixtures("types_unchecked")
    def test_what_is_no_table_is_named(self):
        with pytest.raises(TypeError, match="Table: held_out is a ndarray; give a share of at least 0, less than 1"):
            Table(FRAME, held_out=np.arange(60) > 50)
        with pytest.raises(TypeError, match="source is a list; pass a DataFrame of pandas, the path of"):
            Table([1, 2])
