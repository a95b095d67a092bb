import gzip
import struct

import numpy as np
import pytest

from sgm.data import DataUnavailable, Idx

RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.integers(0, 256, (7, 4, 5), np.uint8), "t10k": RNG.integers(0, 256, (3, 4, 5), np.uint8)}
LABELS = {"train": np.asarray([0, 2, 1, 2, 0, 1, 2], np.uint8), "t10k": np.asarray([1, 0, 2], np.uint8)}


def as_idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    for prefix in ("train", "t10k"):  # As they are, and compressed.
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(as_idx(IMAGES[prefix]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(as_idx(LABELS[prefix])))
    return tmp_path


def test_images_and_labels_are_those_of_the_files(folder):
    data = Idx(str(folder), (4, 5), classes=3)
    assert (data.shape, data.levels, data.conditioning.classes) == ((4, 5, 1), 256, 3)
    assert (data.size("train"), data.size("test")) == (7, 3)
    x, fields = data.rows("test", 0, 3)
    np.testing.assert_array_equal(x[..., 0], IMAGES["t10k"])
    np.testing.assert_array_equal(fields["label"], LABELS["t10k"])
    x, fields = data.take("train", np.asarray([6, 1]))
    np.testing.assert_array_equal(x[..., 0], IMAGES["train"][[6, 1]])
    assert fields["label"].tolist() == [2, 2] and fields["label"].dtype == np.int32


def test_labels_are_left_out_unless_asked_for(folder):
    data = Idx(str(folder), (4, 5))
    assert data.conditioning.classes is None and data.batch(0, 4, seed=0)[1] == {}


def test_a_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataUnavailable, match="Idx: there is no t10k-labels-idx1-ubyte, nor"):
        Idx(str(folder), (4, 5)).size("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "is cut off"),
        (lambda content: content[:6], "is cut off"),
        (lambda content: content + b"\0", "is cut off, or longer"),
        (lambda content: content[:2] + b"\x0d" + content[3:], "is no idx file of unsigned bytes"),
        (lambda content: b"", "is no idx file"),
    ],
)
def test_a_damaged_file_is_refused(folder, change, message):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataUnavailable, match=f"Idx: .*train-images-idx3-ubyte {message}"):
        Idx(str(folder), (4, 5)).size("train")


def test_a_damaged_archive_is_refused(folder):
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataUnavailable, match=r"train-labels-idx1-ubyte.gz can not be read"):
        Idx(str(folder), (4, 5)).size("train")


def test_as_many_labels_as_images(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(as_idx(IMAGES["train"][:5]))
    with pytest.raises(DataUnavailable, match="has 5 images but 7 labels of train"):
        Idx(str(folder), (4, 5)).size("train")


def test_another_size_or_more_classes_are_refused_with_the_remedy(folder):
    with pytest.raises(DataUnavailable, match=r"have shape \(4, 5\); give it as resolution"):
        Idx(str(folder)).size("train")
    with pytest.raises(ValueError, match=r"classes = 2, but .* has the class 2; give classes = 3 or more"):
        Idx(str(folder), (4, 5), classes=2).size("train")
