"""Arrays and files: units, splits, conditions, and errors that say what is wrong."""

import os
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pandas
import pytest

import sgm
from sgm.data import Arrays, DataUnavailable, Files, formats

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
X = RNG.normal(3, 0.4, (60, 4, 3, 2)).astype(np.float32)
THETA = RNG.uniform(0.1, 0.5, (60, 2)).astype(np.float32)
LABEL = np.arange(60) % 3
IMAGE = RNG.normal(size=(60, 5, 5)).astype(np.float32)
HELD = np.arange(60) >= 50


class TestArrays:
    data = Arrays(X, params=THETA, label=LABEL, image=IMAGE)

    def test_a_record_has_all_parts(self):
        x, fields = self.data.rows("train", 0, 7)
        assert x.shape == (7, 4, 3, 2) and x.dtype == np.float32
        assert {name: (part.shape, part.dtype.kind) for name, part in fields.items()} == {
            "params": ((7, 2), "f"),
            "label": ((7,), "i"),
            "image": ((7, 5, 5, 1), "f"),
        }
        assert self.data.conditioning == sgm.nn.Conditioning(params=2, classes=3, image=(5, 5, 1))
        assert (self.data.shape, self.data.levels) == ((4, 3, 2), None)

    def test_rows_belong_together_and_splits_are_apart(self):
        seen = []
        for split in ("train", "test"):
            x, fields = self.data.rows(split, 0, 100)
            for i in range(len(x)):
                place = int(np.flatnonzero((x[i] == X).all(axis=(1, 2, 3)))[0])
                np.testing.assert_array_equal(fields["params"][i], THETA[place])
                assert fields["label"][i] == LABEL[place]
                seen.append(place)
        assert sorted(seen) == list(range(60)) and self.data.size("test") == 6

    def test_units_and_statistics_are_those_of_the_training_examples(self):
        x, fields = self.data.rows("train", 0, 100)
        np.testing.assert_allclose(self.data.units.mean.value, x.mean(axis=(0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(self.data.units.std.value, x.std(axis=(0, 1, 2)), rtol=1e-5)
        mean, std = self.data.statistics()
        np.testing.assert_allclose(mean, fields["params"].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(std, fields["params"].std(axis=0), rtol=1e-5)

    def test_the_split_is_a_function_of_the_seed(self):
        first, again, other = (Arrays(X, seed=seed).rows("test", 0, 9)[0] for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_the_split_may_be_named(self):
        data = Arrays(X, held_out=HELD)
        np.testing.assert_array_equal(data.rows("test", 0, 100)[0], X[50:])
        assert Arrays(X, held_out=0.0).size("test") == 0

    def test_grey_levels_are_kept_and_come_back(self):
        levels = RNG.integers(0, 256, (30, 4, 4, 1), np.uint8)
        data = Arrays(levels)
        assert data.levels == 256 and data.rows("train", 0, 2)[0].dtype == np.uint8
        z = data.units.standardise(jnp.asarray([0.0, 255.0]))
        np.testing.assert_allclose(z, [-1 + 1 / 256, 1 - 1 / 256], rtol=1e-6)
        assert Arrays((levels // 64).astype(np.uint8), grey_levels=4).levels == 4
        assert Arrays(levels.astype(np.uint16) * 257).levels == 65536

    def test_floats_between_0_and_255_are_numbers(self):
        x = RNG.uniform(0, 255, (30, 4, 4, 1))
        data = Arrays(x)
        assert data.levels is None
        mean, std = float(data.units.mean.value[0]), float(data.units.std.value[0])
        assert mean == pytest.approx(127.5, rel=0.1) and std == pytest.approx(255 / 12**0.5, rel=0.1)

    def test_numbers_and_jax_arrays_are_examples(self):
        assert Arrays(RNG.normal(size=30)).shape == (1,)
        assert Arrays(jnp.asarray(X)).shape == (4, 3, 2)

    def test_far_numbers_keep_their_digits(self):
        days = 60_000 + RNG.normal(size=(50, 1))
        x, _ = Arrays(days).rows("train", 0, 50)
        assert x.dtype == np.float64 and Arrays(days - 60_000).rows("train", 0, 5)[0].dtype == np.float32

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"x": np.c_[X[:, 0, 0], np.full(60, 2.0)]}, r"column 2 of x is constant \(= 2\); leave it out"),
            ({"x": np.where(np.arange(60)[:, None] == 7, np.nan, THETA)}, "column 0 of x has entries that are missing"),
            ({"x": np.c_[THETA, LABEL]}, "column 2 of x has only the whole values 0, 1, 2, as categories have"),
            ({"x": LABEL[:, None]}, r"x has dtype int64; convert it to np.float32 if these are numbers"),
            ({"x": THETA > 0.3}, r"x has dtype bool; pass x.astype\(np.uint8\) with grey_levels=2"),
            ({"x": X, "params": THETA[:50]}, "x has 60, params has 50; pass as many rows of each"),
            ({"x": X, "params": np.c_[THETA, np.ones(60)]}, r"column 2 of params is constant"),
            ({"x": X, "label": LABEL - 1}, "the label of example 0 is -1; labels are the whole numbers from 0"),
            ({"x": X, "label": LABEL, "classes": 2}, r"the label of example 2 is 2; .* 0 ... 1, as classes is 2"),
            ({"x": X, "label": np.asarray(["a"] * 60)}, "number the classes from 0"),
            ({"x": X, "image": THETA}, r"image has shape \(60, 2\); pass an image for each example"),
            ({"x": X, "held_out": 1.5}, "held_out is 1.5; give a share"),
            ({"x": X, "held_out": LABEL}, "held_out has dtype int64"),
            (
                {"x": np.full((9, 2, 2, 1), 7, np.uint8), "grey_levels": 4},
                "x has the grey level 7, but grey_levels is 4",
            ),
            ({"x": np.eye(9, 3, dtype=np.uint8), "grey_levels": 0}, "grey_levels = 0; pass grey_levels >= 2"),
            ({"x": np.eye(9, 3, dtype=np.uint8), "grey_levels": 300}, "grey_levels is 300, .* no more than 256 levels"),
            ({"x": np.zeros((0, 3))}, r"x has shape \(0, 3\); pass examples along the first axis"),
            ({"x": np.full((9, 3), 4, np.uint8)}, r"x is constant \(= 4\); pass examples that differ"),
            ({"x": X, "classes": 2}, "classes = 2, but there is no label"),
            ({"x": X, "seed": -1}, "seed = -1; pass seed >= 0"),
            (
                {"x": np.pad(X[..., 0], ((0, 0), (2, 2), (2, 2)))},
                r"channel 0 of x is constant \(= 0\); leave it out, or pass x\[..., None\] if these are grey images",
            ),
        ],
    )
    def test_what_no_model_can_be_trained_on_is_named(self, arguments, message):
        with pytest.raises(ValueError, match=rf"Arrays: .*{message}"):
            Arrays(**arguments)

    def test_few_grey_levels_are_told(self):
        with pytest.warns(UserWarning, match="taken for 256 grey levels.*the largest is 2; pass grey_levels=3"):
            Arrays(np.stack([LABEL, LABEL[::-1]], axis=1).astype(np.uint8))

    def test_what_is_no_array_is_named(self):
        with pytest.raises(TypeError, match=r"x is a DataFrame, not an array; pass sgm.data.Table\(x\)"):
            Arrays(pandas.DataFrame({"a": [1.0, 2.0]}))
        with pytest.raises(TypeError, match=r"x is a list, not an array; pass np.asarray\(x\)"):
            Arrays([[1.0], [2.0]])


def write_npz(folder, compressed=False):
    save = np.savez_compressed if compressed else np.savez
    save(folder / "maps.npz", x=X, theta=THETA, label=LABEL, held=HELD)
    return folder / "maps.npz"


def write_folder(folder):
    (folder / "maps").mkdir()
    for name, array in {"x": X, "theta": THETA, "label": LABEL, "held": HELD}.items():
        np.save(folder / "maps" / f"{name}.npy", array)
    return folder / "maps"


def write_parquet(folder):
    columns = {"x": X.reshape(-1, 4, 6).tolist(), "theta": THETA.tolist(), "label": LABEL, "held": HELD}
    pandas.DataFrame(columns).to_parquet(folder / "maps.parquet")
    return folder / "maps.parquet"


def write_hdf5(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "maps.h5", "w") as file:
        for name, array in {"x": X, "theta": THETA, "label": LABEL, "held": HELD}.items():
            file.create_dataset(name, data=array)
    return folder / "maps.h5"


def write_zarr(folder):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(folder / "maps.zarr"), mode="w")
    for name, array in {"x": X, "theta": THETA, "label": LABEL, "held": HELD}.items():
        group.create_array(name, data=array)
    return folder / "maps.zarr"


WRITERS = {
    "npz": write_npz,
    "compressed npz": lambda folder: write_npz(folder, True),
    "folder": write_folder,
    "parquet": write_parquet,
    "hdf5": write_hdf5,
    "zarr": write_zarr,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


class TestFiles:
    @pytest.mark.parametrize("kind", WRITERS)
    def test_a_file_has_what_its_arrays_have(self, kind, tmp_path):
        path = str(WRITERS[kind](tmp_path))
        data = Files(path, params="theta", label="label")
        arrays = Arrays(X, params=THETA, label=LABEL)
        for split in ("train", "test"):
            (x, fields), (expected, others) = data.rows(split, 3, 9), arrays.rows(split, 3, 9)
            np.testing.assert_allclose(x.reshape(expected.shape), expected, rtol=1e-6)
            np.testing.assert_allclose(fields["params"], others["params"], rtol=1e-6)
            np.testing.assert_array_equal(fields["label"], others["label"])
        assert data.conditioning == arrays.conditioning
        x, _ = data.batch(2, 100, 0)
        np.testing.assert_allclose(x.reshape(100, *X.shape[1:]), arrays.batch(2, 100, 0)[0], rtol=1e-6)
        named = Files(path, held_out="held")
        np.testing.assert_allclose(named.rows("test", 0, 99)[0].reshape(10, *X.shape[1:]), X[50:], rtol=1e-6)

    @pytest.mark.parametrize("kind", WRITERS)
    @pytest.mark.parametrize("opened", [100, 1])
    def test_several_files_have_what_one_has(self, kind, opened, tmp_path, monkeypatch):
        monkeypatch.setattr("sgm.data.opened._OPEN_SHARDS", opened)
        paths = []
        for part, rows in enumerate((slice(0, 7), slice(7, 8), slice(8, 60))):
            (tmp_path / f"part{part}").mkdir()
            with monkeypatch.context() as patch:
                for name in ("X", "THETA", "LABEL", "HELD"):
                    patch.setitem(globals(), name, globals()[name][rows])
                paths.append(str(WRITERS[kind](tmp_path / f"part{part}")))
        (tmp_path / "whole").mkdir()
        one = Files(str(WRITERS[kind](tmp_path / "whole")), params="theta", label="label", held_out="held")
        for path in (str(tmp_path / "part*" / "maps*"), tuple(paths)):
            data = Files(path, params="theta", label="label", held_out="held")
            assert (data.shape, data.conditioning, data.size("test")) == (one.shape, one.conditioning, 10)
            for (x, fields), (expected, others) in (
                (data.batch(1, 70, 0), one.batch(1, 70, 0)),
                (data.rows("test", 0, 99), one.rows("test", 0, 99)),
            ):
                np.testing.assert_array_equal(x, expected)
                for name in ("params", "label"):
                    np.testing.assert_array_equal(fields[name], others[name])
            np.testing.assert_array_equal(data.units.mean.value, one.units.mean.value)
        swapped = Files(tuple(reversed(paths)), held_out=0.0).rows("train", 52, 53)[0]
        np.testing.assert_allclose(swapped.reshape(1, *X.shape[1:]), X[7:8], rtol=1e-6)

    def test_files_that_do_not_belong_together_are_named(self, tmp_path):
        for name, arrays in {
            "a": {"x": X},
            "b": {"x": X[:, :2]},
            "c": {"x": X.astype(np.uint8)},
            "d": {"y": X},
        }.items():
            np.savez(tmp_path / f"{name}.npz", **arrays)
        for name, words in {
            "b": r"b.npz: the array 'x' has shape \(60, 2, 3, 2\) and dtype float32, but that of .*a.npz \(60, 4, 3",
            "c": r"c.npz: the array 'x' has shape .* and dtype uint8, but",
            "d": r"d.npz: there is no array 'x', which .*a.npz has; add it, or leave the file out",
        }.items():
            with pytest.raises(ValueError, match=words):
                Files((str(tmp_path / "a.npz"), str(tmp_path / f"{name}.npz"))).size("train")
        with pytest.raises(
            DataUnavailable, match=r"Files: no file matches .*z-\*.npz; pass the path of one, or another"
        ):
            Files(str(tmp_path / "z-*.npz")).size("train")
        with pytest.raises(DataUnavailable, match="Files: path names no file; pass the path of one or more"):
            Files(()).size("train")

    @pytest.mark.parametrize("held_out", [0.0, "held"])
    def test_arrays_of_a_file_that_differ_in_length_are_named(self, held_out, tmp_path):
        """The sums over all files agree."""
        for name, x, theta in (("a", 20, 20), ("b", 5, 6), ("c", 5, 4)):
            np.savez(tmp_path / f"{name}.npz", x=X[:x], theta=THETA[:theta], held=HELD[:x])
        data = Files(str(tmp_path / "*.npz"), params="theta", held_out=held_out)
        with pytest.raises(ValueError, match=r"b.npz: the array '\w+' has 5 rows, but '\w+' 6; store as many rows"):
            data.rows("train", 0, 30)

    @pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind not in ("folder", "zarr")] + ["npy", "csv"])
    def test_a_file_that_is_cut_short_is_named(self, kind, tmp_path):
        for folder in (tmp_path / "a", tmp_path / "b"):
            folder.mkdir()
            if kind == "npy":
                np.save(folder / "maps.npy", X)
            elif kind == "csv":
                pandas.DataFrame({"x": THETA[:, 0]}).to_csv(folder / "maps.csv", index=False)
            else:
                WRITERS[kind](folder)
        (path,) = (tmp_path / "b").iterdir()
        path.write_bytes(b"" if kind == "csv" else path.read_bytes()[:-1000])
        with pytest.raises(DataUnavailable, match=rf"b/{path.name}: it cannot be read \(.*\); store it again"):
            Files(str(tmp_path / "*" / "maps.*")).rows("train", 0, 1)

    def test_a_table_with_other_columns_is_named(self, tmp_path):
        for name, columns in {"a": ["x", "y"], "b": ["y", "x"], "c": ["x", "z"]}.items():
            pandas.DataFrame(THETA, columns=columns).to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(ValueError, match=r"c.csv: its columns are x, z, but those of .*a.csv x, y; store the same"):
            Files(str(tmp_path / "*.csv")).rows("train", 0, 1)

    def test_a_compressed_file_is_unpacked_once(self, tmp_path):
        path = tmp_path / "maps.npz"
        np.savez_compressed(path, x=X)
        assert formats.NpzFile(path).array("x").filename == formats.NpzFile(path).array("x").filename
        np.savez_compressed(path, x=2 * X)
        os.utime(path, ns=(0, 1))
        np.testing.assert_array_equal(formats.NpzFile(path).array("x"), 2 * X)

    def test_a_npy_file_has_one_array(self, tmp_path):
        np.save(tmp_path / "x.npy", X)
        np.testing.assert_array_equal(Files(str(tmp_path / "x.npy"), held_out=0.0).rows("train", 0, 99)[0], X)

    def test_columns_of_a_csv_stand_side_by_side(self, tmp_path):
        frame = pandas.DataFrame({"a": THETA[:, 0], "b": 1e6 * THETA[:, 1], "c": RNG.normal(size=60)})
        frame.to_csv(tmp_path / "table.csv", index=False)
        data = Files(str(tmp_path / "table.csv"), x=("a", "c"), params=("b",), held_out=0.0)
        x, fields = data.rows("train", 0, 60)
        np.testing.assert_allclose(x, frame[["a", "c"]].to_numpy(np.float32), rtol=1e-6)
        np.testing.assert_allclose(fields["params"], frame[["b"]].to_numpy(np.float32), rtol=1e-6)

    @pytest.mark.usefixtures("types_unchecked")
    def test_a_column_of_whole_numbers_is_one_of_numbers(self, tmp_path):
        frame = pandas.DataFrame({"count": np.arange(60), "label": LABEL})
        frame.to_csv(tmp_path / "table.csv", index=False)
        for x in ("count", ["count"]):
            data = Files(str(tmp_path / "table.csv"), x=x, label="label", held_out=0.0)
            np.testing.assert_array_equal(data.rows("train", 0, 60)[0], np.arange(60, dtype=np.float32)[:, None])

    @pytest.mark.parametrize("kind", ["npz", "hdf5", "zarr"])
    def test_a_file_is_never_wholly_loaded(self, kind, tmp_path):
        x = RNG.normal(size=(4000, 64, 64, 1)).astype(np.float32)  # 64 MiB
        if kind == "npz":
            np.savez(tmp_path / "x.npz", x=x)
        elif kind == "hdf5":
            with pytest.importorskip("h5py").File(tmp_path / "x.hdf5", "w") as file:
                file["x"] = x
        else:
            pytest.importorskip("zarr").save(str(tmp_path / "x.zarr"), x=x)
        path, size = str(tmp_path / f"x.{kind}"), x.nbytes
        del x
        tracemalloc.start()
        data = Files(path)
        data.batch(0, 32, 0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < size

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"x": "y"}, "there is no array 'y' in .*maps.npz; there are x, theta, label, held"),
            ({"held_out": "theta"}, "held_out, 'theta', is no array of booleans"),
            ({"x": ("theta", "label")}, "the array 'theta' has shape"),
        ],
    )
    def test_what_is_wrong_with_a_file_is_said(self, tmp_path, options, message):
        data = Files(str(write_npz(tmp_path)), **options)
        with pytest.raises(ValueError, match=message):
            data.rows("train", 0, 1)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("none.npz", "Files: there is no file .*none.npz; pass the path"),
            ("maps.fits", r"is of no known format; pass one of \.npy, \.npz"),
        ],
    )
    def test_a_file_that_cannot_be_had_is_named(self, tmp_path, name, message):
        (tmp_path / "maps.fits").write_text("SIMPLE")
        with pytest.raises(DataUnavailable, match=message):
            _ = Files(str(tmp_path / name)).shape

    def test_objects_are_not_read(self, tmp_path):
        np.savez(tmp_path / "x.npz", x=np.asarray([{"a": 1}, None], dtype=object))
        with pytest.raises(DataUnavailable, match=r"x.npz: it cannot be read \(x.npy holds Python objects"):
            Files(str(tmp_path / "x.npz")).rows("train", 0, 1)

    def test_lists_of_other_lengths_are_named(self, tmp_path):
        pandas.DataFrame({"x": [[1.0, 2.0], [3.0]] * 10}).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(ValueError, match="the lists of column 'x' have other lengths; pad them"):
            Files(str(tmp_path / "x.parquet")).rows("train", 0, 20)
        # Also where their sum fits.
        pandas.DataFrame({"x": [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]] * 4}).to_parquet(tmp_path / "y.parquet")
        with pytest.raises(ValueError, match="the lists of column 'x' have other lengths; pad them"):
            Files(str(tmp_path / "y.parquet")).rows("train", 0, 10)
        pandas.DataFrame({"x": [None, [3.0, 1.0]] * 6}).to_parquet(tmp_path / "z.parquet")
        with pytest.raises(ValueError, match="column 'x' has rows without a list; leave them out"):
            Files(str(tmp_path / "z.parquet")).rows("train", 0, 10)
