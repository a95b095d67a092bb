"""The loop of an evaluation: batches, resumption, the report."""

import dataclasses
import json

import jax.random as jr
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from truth import gaussian

import sgm
from sgm.evaluation import AbstractMetric, ChainBound, LogLikelihood, PowerSpectrum, Row, read_columns, write_columns

DATA = sgm.data.Moons()
MODEL = gaussian(2)


class MeanNorm(AbstractMetric):
    """The mean of |x|, which counts how many batches it was asked for."""

    calls: list = dataclasses.field(default_factory=list, repr=False)
    fails_at: int = 10**9

    def columns(self, context, x, fields, key):
        self.calls.append(len(x))
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        return {"norm": np.linalg.norm(x, axis=1)}

    def rows(self, context, columns):
        return [Row.mean("norm", columns["norm"], note="of all examples")]


def run(*metrics, **options):
    how = {"split": "test", "batch_size": 4, "n": 10, "progress": False} | options
    return sgm.evaluate(sgm.VP(), MODEL, DATA, metrics, jr.key(0), **how)


def test_a_ragged_last_batch_has_each_example_once(tmp_path):
    report = run(MeanNorm(), folder=tmp_path)
    x, _ = DATA.rows("test", 0, 10)
    np.testing.assert_array_equal(report.columns["norm"], np.linalg.norm(x, axis=1))
    assert report["norm"].value == pytest.approx(np.linalg.norm(x, axis=1).mean())
    assert report["norm"].stderr == pytest.approx(np.linalg.norm(x, axis=1).std(ddof=1) / 10**0.5)
    assert (report.split, report.examples) == ("test", 10)
    assert len(list(tmp_path.glob("*/*.parquet"))) == 3


def test_data_that_are_not_of_the_model_are_refused():
    three = sgm.data.Arrays(np.random.default_rng(0).standard_normal((40, 3)))
    levels = sgm.data.Arrays(np.random.default_rng(0).integers(0, 4, (40, 2, 2, 1), np.uint8), grey_levels=4)
    of_others = sgm.model.WithUnits(gaussian(4), sgm.Units.of_levels(7))
    metrics = [sgm.evaluation.SlicedWasserstein()]
    with pytest.raises(ValueError, match=r"evaluate: the data are of shape \(3,\), but the model is of .* \(2,\)"):
        sgm.evaluate(sgm.VP(), MODEL, three, metrics, jr.key(0))
    flat = sgm.data.Arrays(np.asarray(levels.x).reshape(40, 4), grey_levels=4)
    with pytest.raises(ValueError, match="evaluate: the data have 4 grey levels, but the units of the model are"):
        sgm.evaluate(sgm.VP(), of_others, flat, metrics, jr.key(0))


def test_metrics_of_one_class_keep_their_own_rows_and_columns():
    report = run(MeanNorm(), MeanNorm())
    assert [row.name for row in report.rows] == ["norm", "norm_2"] and set(report.columns) == {"norm", "norm_2"}
    assert set(report.to_json()["metrics"]) == {"norm", "norm_2"}
    with pytest.raises(KeyError, match="there is no row 'norms'; there are norm, norm_2"):
        report["norms"]


def test_an_interrupted_evaluation_goes_on(tmp_path):
    whole = run(MeanNorm())
    with pytest.raises(KeyboardInterrupt):
        run(MeanNorm(fails_at=2), folder=tmp_path)
    assert len(list(tmp_path.glob("*/*.parquet"))) == 1
    metric = MeanNorm()
    resumed = run(metric, folder=tmp_path)
    assert metric.calls == [4, 4]  # two batches were left
    np.testing.assert_array_equal(resumed.columns["norm"], whole.columns["norm"])


def test_an_interrupted_evaluation_goes_on_with_arrays_of_any_shape(tmp_path):
    class Products(MeanNorm):
        def columns(self, context, x, fields, key):
            return super().columns(context, x, fields, key) | {"products": x[:, :, None, None] * x[:, None, :, None]}

    with pytest.raises(KeyboardInterrupt):
        run(Products(fails_at=2), folder=tmp_path)
    x, _ = DATA.rows("test", 0, 10)
    resumed = run(Products(), folder=tmp_path)
    np.testing.assert_array_equal(resumed.columns["products"], x[:, :, None, None] * x[:, None, :, None])


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 4, 1), (3, 0, 2), (0, 2, 2)], ids=str)
def test_columns_come_back_in_their_shapes(shape, tmp_path):
    columns = {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape), "index": np.arange(shape[0])}
    write_columns(tmp_path / "columns.parquet", columns)
    found = read_columns(tmp_path / "columns.parquet")
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)


def test_columns_of_a_table_without_shapes_are_lists(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"x": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path / "columns.parquet")
    np.testing.assert_array_equal(read_columns(tmp_path / "columns.parquet")["x"], [[1, 2], [3, 4]])


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path, monkeypatch):
    run(MeanNorm(), folder=tmp_path)
    for path in tmp_path.glob("*/*.parquet"):
        assert set(read_columns(path)) == {"norm"}
        path.unlink()

    def full_disk(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(MeanNorm(), folder=tmp_path)
    assert not list(tmp_path.glob("*/*.parquet"))


def test_the_report_is_printed_and_written_from_the_same_rows():
    report = run(MeanNorm())
    row = report["norm"]
    assert f"{row.value:.4f} ± {row.stderr:.4f} (of all examples)" in str(report)
    written = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert written["metrics"]["norm"] == {
        "value": row.value,
        "stderr": row.stderr,
        "unit": "",
        "note": "of all examples",
        "is_score": True,
    }


def test_what_is_not_finite_is_left_out_and_said():
    row = Row.mean("x", np.asarray([1.0, np.nan, 3.0]))
    assert (row.value, row.note) == (2.0, "1 of 3 are not finite, and left out")
    nothing = Row.mean("x", np.asarray([np.nan]))
    assert np.isnan(nothing.value) and nothing.stderr is None
    report = sgm.evaluation.Report("test", 1, (nothing,), {}, 0.0)
    assert report.to_json()["metrics"]["x"]["value"] is None


def test_log_likelihoods_are_those_of_the_library():
    report = run(LogLikelihood(sgm.Exact()), batch_size=10)
    x, _ = DATA.rows("test", 0, 10)
    expected = np.asarray(sgm.log_prob(sgm.VP(), MODEL, x, jr.key(0), trace=sgm.Exact()))
    np.testing.assert_allclose(report.columns["log_prob"], expected, rtol=1e-4)
    assert report["log_prob"].value == pytest.approx(expected.mean(), rel=1e-4)
    assert report["minus_entropy"].value == pytest.approx(-DATA.entropy)
    assert report["log_prob"].value < -DATA.entropy


def test_values_that_are_not_accurate_are_counted():
    report = run(LogLikelihood(sgm.Exact()), batch_size=10)
    context, ((_, found),) = report.context, report.parts
    rows = LogLikelihood(sgm.Exact()).rows(context, found | {"converged": np.arange(10) > 2})
    assert [row.value for row in rows if row.name == "inaccurate"] == [3]
    assert "inaccurate" not in [row.name for row in LogLikelihood(sgm.Exact()).rows(context, found)]


@pytest.mark.slow
def test_what_misses_the_accuracy_is_told():
    report = run(LogLikelihood(sgm.Exact(), accuracy=1e-9))
    assert np.all(np.isfinite(report.columns["log_prob"])) and not report.columns["converged"].all()
    assert report["inaccurate"].value == np.sum(~report.columns["converged"])


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        (MeanNorm(), {"n": 0}, "n = 0; pass n >= 1"),
        (MeanNorm(), {"n": -1}, "n = -1; pass n >= 1"),
        (MeanNorm(), {"batch_size": 0}, "batch_size = 0"),
        (MeanNorm(), {"split": "valid"}, "unknown split 'valid'"),
        (ChainBound(), {}, "ChainBound: the process is a VP; pass a DiscreteChain, or the metric ContinuousBound"),
        (PowerSpectrum(), {}, r"PowerSpectrum: examples have the shape \(2,\)"),
    ],
)
def test_wrong_evaluations_are_named(metric, options, message):
    with pytest.raises(ValueError, match=message):
        run(metric, **options)
