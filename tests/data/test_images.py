import os
import pathlib

import datasets
import numpy as np
import PIL.Image
import pytest
from pictures import encode, levels, numbered, unavailable, write_parquet

from sgm.data import Images, prefetch, prepare
from sgm.nn.conditioning import Conditioning

REAL = pathlib.Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def test_parquet_shards_in_a_subfolder(folder):
    write_parquet(folder / "data" / "train-00000-of-00002.parquet", numbered(6)[:3], [0, 1, 2], column="img")
    write_parquet(folder / "data" / "train-00001-of-00002.parquet", numbered(6)[3:], [2, 1, 0], column="img")
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", numbered(2), [1, 1], column="img")
    data = Images(None, str(folder), resolution=4, channels=1, classes=3)
    assert (data.size("train"), data.size("test")) == (6, 2)
    assert (data.shape, data.levels, data.conditioning) == ((4, 4, 1), 256, Conditioning(classes=3))
    x, condition = data.rows("train", 0, 10)
    assert x.dtype == np.uint8 and condition["label"].dtype == np.int32
    np.testing.assert_array_equal(x, np.broadcast_to(10 * np.arange(6)[:, None, None, None], (6, 4, 4, 1)))
    np.testing.assert_array_equal(condition["label"], [0, 1, 2, 2, 1, 0])
    assert data.rows("test", 2, 5)[0].shape == (0, 4, 4, 1)


def test_batches_are_shuffled_rows_with_their_labels(folder):
    write_parquet(folder / "train.parquet", numbered(9), [0, 1, 2] * 3)
    write_parquet(folder / "test.parquet", numbered(1), [0])
    data = Images(None, str(folder), resolution=4, channels=1, classes=3)
    for x, condition in prefetch(lambda step: data.batch(step, 18, seed=0), 0, 3):
        numbers = x[:, 0, 0, 0] // 10
        np.testing.assert_array_equal(np.sort(numbers), np.repeat(np.arange(9), 2))
        np.testing.assert_array_equal(condition["label"], numbers % 3)


def test_image_folder_with_classes(folder):
    for split, count in (("train", 3), ("test", 2)):
        for kind, offset in (("cat", 0), ("dog", 100)):
            (folder / split / kind).mkdir(parents=True)
            for i in range(count):
                PIL.Image.new("RGB", (4, 4), (offset + i, 7, 9)).save(folder / split / kind / f"{i}.png")
    data = Images(None, str(folder), resolution=4, classes=2)
    assert (data.size("train"), data.size("test")) == (6, 4)
    x, condition = data.rows("test", 0, 4)
    np.testing.assert_array_equal(condition["label"], x[:, 0, 0, 0] // 100)
    assert sorted(map(tuple, x[:, 0, 0].tolist())) == [(0, 7, 9), (1, 7, 9), (100, 7, 9), (101, 7, 9)]


def test_strings_become_indices_of_their_sorted_names(folder):
    write_parquet(folder / "train.parquet", numbered(3), ["rose", "iris", "tulip"])
    write_parquet(folder / "test.parquet", numbered(2), ["tulip", "aster"])
    data = Images(None, str(folder), resolution=4, channels=1, classes=4)
    np.testing.assert_array_equal(data.rows("train", 0, 3)[1]["label"], [2, 1, 3])
    np.testing.assert_array_equal(data.rows("test", 0, 2)[1]["label"], [3, 0])


def test_labels_only_if_wanted(folder):
    write_parquet(folder / "train.parquet", numbered(3), [0, 1, 2])
    data = Images(None, str(folder), resolution=4, channels=1)
    assert data.conditioning == Conditioning() and data.statistics() is None
    assert data.rows("train", 0, 1)[1] == {}


def test_grey_and_colour_are_converted(folder):
    PIL.Image.new("RGB", (4, 4), (200, 100, 50)).save(folder / "0.png")
    PIL.Image.new("L", (4, 4), 80).save(folder / "1.png")
    PIL.Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(folder / "2.png")
    colour = Images(None, str(folder), resolution=4)._prepare("train")
    grey = Images(None, str(folder), resolution=4, channels=1)._prepare("train")
    assert [tuple(pixels[:3]) for pixels in colour["pixels"]] == [(200, 100, 50), (80, 80, 80), (1, 2, 3)]
    # ITU-R 601 luma: 0.299 R + 0.587 G + 0.114 B
    assert [pixels[0] for pixels in grey["pixels"]] == [124, 80, 2]
    assert [len(pixels) for pixels in grey["pixels"]] == [16, 16, 16]


@pytest.mark.parametrize("transpose", [False, True])
def test_the_central_square_is_kept(folder, transpose):
    pattern = np.arange(4 * 8, dtype=np.uint8).reshape(4, 8)
    pattern, expected = (pattern.T, pattern[:, 2:6].T) if transpose else (pattern, pattern[:, 2:6])
    write_parquet(folder / "train.parquet", [PIL.Image.fromarray(np.ascontiguousarray(pattern))] * 2)
    x, _ = Images(None, str(folder), resolution=4, channels=1).rows("train", 0, 1)
    np.testing.assert_array_equal(x[0, :, :, 0], expected)


def test_shrinking_averages(folder):
    # Checks of one pixel: picking pixels would give 0 or 255
    checks = np.indices((32, 32)).sum(axis=0) % 2 * np.uint8(255)
    write_parquet(folder / "train.parquet", [PIL.Image.fromarray(checks.astype(np.uint8))] * 2)
    x, _ = Images(None, str(folder), resolution=4, channels=1).rows("train", 0, 1)
    assert x.shape == (1, 4, 4, 1)
    np.testing.assert_allclose(x.astype(float), 127.5, atol=2)


def test_exif_orientation_is_applied(folder):
    picture = PIL.Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    exif = picture.getexif()
    exif[0x0112] = 6  # stored turned: upright is a quarter turn clockwise from it
    picture.save(folder / "0.png", exif=exif)
    x, _ = Images(None, str(folder), resolution=4, channels=1).rows("train", 0, 1)
    np.testing.assert_array_equal(x[0, :, :, 0], np.rot90(np.arange(16).reshape(4, 4), k=-1))


def test_validation_serves_as_test(folder):
    write_parquet(folder / "train.parquet", numbered(5))
    write_parquet(folder / "validation.parquet", numbered(3))
    data = Images(None, str(folder), resolution=4, channels=1)
    assert (data.size("train"), data.size("test")) == (5, 3)


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 1), (9, 1), (25, 2)])
def test_a_tenth_is_held_out_where_there_is_no_other_split(folder, count, held_out):
    write_parquet(folder / "train.parquet", numbered(count))
    data = Images(None, str(folder), resolution=4, channels=1)
    train, test = levels(data.rows("train", 0, 50)), levels(data.rows("test", 0, 50))
    assert len(test) == held_out
    assert sorted(train + test) == [10 * i for i in range(count)]
    assert test == levels(Images(None, str(folder), resolution=4, channels=1).rows("test", 0, 50))


def test_preparation_is_done_once(folder, monkeypatch):
    write_parquet(folder / "train.parquet", numbered(3))
    before = Images(None, str(folder), resolution=4, channels=1).rows("train", 0, 3)[0]
    monkeypatch.setattr(prepare.Preparation, "__call__", lambda *_: pytest.fail("prepared again"))
    np.testing.assert_array_equal(Images(None, str(folder), resolution=4, channels=1).rows("train", 0, 3)[0], before)


@pytest.mark.parametrize("kind", ["parquet", "png"])
def test_a_changed_file_is_read_again(folder, kind):
    file = folder / f"train.{kind}"

    def write(level):
        picture = PIL.Image.new("L", (4, 4), level)
        write_parquet(file, [picture]) if kind == "parquet" else picture.save(file)

    write(10)
    assert levels(Images(None, str(folder), resolution=4, channels=1).rows("train", 0, 1)) == [10]
    before = file.stat().st_mtime
    write(20)
    os.utime(file, (before + 1, before + 1))
    assert levels(Images(None, str(folder), resolution=4, channels=1).rows("train", 0, 1)) == [20]


def test_read_only_folders_serve(folder):
    write_parquet(folder / "train.parquet", numbered(3))
    contents = sorted(folder.rglob("*"))
    Images(None, str(folder), resolution=4, channels=1).size("train")
    assert sorted(folder.rglob("*")) == contents


def test_loaded_data_are_no_part_of_equality(folder):
    write_parquet(folder / "train.parquet", numbered(3))
    loaded = Images(None, str(folder), resolution=4)
    loaded.size("train")
    assert loaded == Images(None, str(folder), resolution=4) != Images(None, str(folder), resolution=8)
    assert hash(loaded) == hash(Images(None, str(folder), resolution=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 0}, "resolution is 0: images need at least 1 pixel a side"),
        ({"resolution": (8, 0)}, r"resolution is \(8, 0\): .*; give one number or two, height and width"),
        ({"channels": 5}, r"channels is 5: images have 1 channel \(grey\), 2 \(grey and alpha\), 3 \(RGB\) or 4"),
        ({"background": "blanc"}, "background is 'blanc': name an opaque colour, such as white"),
        ({"background": "#ffffff80"}, "background is '#ffffff80': name an opaque colour, such as white"),
        ({"name": None}, "neither name nor path is given: name a data set of the HuggingFace hub or a local folder"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Images(**{"name": "someone/something"} | settings)


def test_unknown_split_and_batch_size_are_refused(folder):
    write_parquet(folder / "train.parquet", numbered(3))
    data = Images(None, str(folder), resolution=4)
    with pytest.raises(ValueError, match="unknown split 'validation'"):
        data.size("validation")
    with pytest.raises(ValueError, match="batch_size is 0"):
        data.batch(0, 0, seed=0)


def test_missing_empty_and_useless_folders(folder):
    assert f"there is no folder {folder / 'nowhere'}: " in unavailable(Images(None, str(folder / "nowhere")))
    assert f"the folder {folder} cannot be read (The directory at" in unavailable(Images(None, str(folder)))
    (folder / "train.txt").write_text("no image")
    assert "holds no images, only the columns ['text']" in unavailable(Images(None, str(folder)))
    (folder / "train.txt").unlink()
    (folder / "train.parquet").write_text("no parquet")
    assert f"the folder {folder} cannot be read (" in unavailable(Images(None, str(folder)))


@pytest.mark.parametrize("name", ["train.parquet", "0.png"])
def test_a_file_is_no_folder(folder, name):
    (folder / name).write_bytes(b"")
    message = unavailable(Images(None, str(folder / name)))
    assert message.startswith(f"{folder / name} is a file, not the folder {folder} that holds it: ")


def test_a_folder_without_training_images(folder):
    write_parquet(folder / "test.parquet", numbered(3))
    assert f"the folder {folder} has no split 'train', only ['test']: " in unavailable(Images(None, str(folder)))


def test_wanted_labels_that_are_not_there(folder):
    write_parquet(folder / "train.parquet", numbered(3))
    with pytest.raises(ValueError, match=r"images has no labels, only the columns \['image'\]: leave classes at None"):
        Images(None, str(folder), classes=2).size("train")


def test_the_number_of_classes_is_checked(folder):
    write_parquet(folder / "train.parquet", numbered(3), ["iris", "lily", "rose"])
    with pytest.raises(ValueError, match=r"images has 3 classes, but classes is 102: give their number"):
        Images(None, str(folder), resolution=4, classes=102).size("train")


def test_a_row_without_a_class(folder):
    write_parquet(folder / "train.parquet", numbered(3), ["iris", None, "rose"])
    with pytest.raises(ValueError, match=r"image 1 of split 'train' of .* has no class \(None\): give it one or leave"):
        Images(None, str(folder), resolution=4, classes=2).size("train")
    assert Images(None, str(folder), resolution=4).size("test") == 1


@pytest.mark.parametrize("damage", ["garbage", "truncated", "missing"])
def test_an_unreadable_image_is_named(folder, damage):
    good = encode(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)))
    bad, reason = {
        "garbage": (b"no picture", "cannot identify image file"),
        "truncated": (good[: len(good) // 2], "truncated"),
        "missing": (None, "it is missing"),
    }[damage]
    rows = {"image": [{"bytes": good, "path": None}, {"bytes": bad, "path": None}]}
    features = datasets.Features({"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    table = datasets.Dataset.from_dict(rows, features).cast_column("image", datasets.Image(decode=False))
    table.to_parquet(folder / "train.parquet")
    with pytest.raises(ValueError, match=rf"image 1 of split 'train' of .*{reason}.*: replace it or leave it out"):
        Images(None, str(folder), resolution=4).size("train")


def test_images_of_sixteen_bits_are_levels_of_their_own_or_refused(folder):
    deep = np.asarray([[300, 40_001], [5, 65_535]], np.uint16)
    PIL.Image.fromarray(deep).save(folder / "0.png")
    data = Images(None, str(folder), resolution=2, channels=1, levels=65536)
    x, _ = data.rows("train", 0, 1)
    assert x.dtype == np.uint16 and data.levels == 65536
    np.testing.assert_array_equal(x[0, :, :, 0], deep)
    message = rf"image 0 \({folder / '0.png'}\) of split 'train' of .*: it has 16 bits a channel, but levels is 256"
    with pytest.raises(ValueError, match=message):
        Images(None, str(folder), resolution=2, channels=1).size("train")


def test_each_background_is_prepared_by_itself(folder):
    PIL.Image.new("RGBA", (4, 4), (1, 2, 3, 0)).save(folder / "0.png")
    for background, level in (("white", 255), ("black", 0)):
        data = Images(None, str(folder), resolution=4, background=background)
        np.testing.assert_array_equal(data.rows("train", 0, 1)[0], np.full((1, 4, 4, 3), level))


def test_rectangles_are_mirrored_left_to_right(folder):
    pattern = np.arange(4 * 8, dtype=np.uint8).reshape(4, 8)
    write_parquet(folder / "train.parquet", [PIL.Image.fromarray(pattern)] * 2)
    data = Images(None, str(folder), resolution=(2, 8), channels=2, flip=True)
    assert data.shape == (2, 8, 2)
    x, _ = data.batch(0, 64, seed=0)
    seen = {tuple(image[0, :, 0].tolist()) for image in x}
    assert seen == {tuple(pattern[1].tolist()), tuple(pattern[1, ::-1].tolist())}


def test_an_unreadable_file_is_named(folder):
    PIL.Image.new("L", (4, 4)).save(folder / "0.png")
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"image 1 \({folder / '1.png'}\) of split 'train' of .* cannot be read"):
        Images(None, str(folder), resolution=4).size("train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "resolution", "channels", "size", "classes"),
    [("mnist", 28, 1, 10_000, 10), ("cifar10", 32, 3, 10_000, 10), ("flowers", 64, 3, 459, 14)],
)
def test_real_images(name, resolution, channels, size, classes):
    if not (REAL / name).is_dir():
        pytest.skip(f"no real images at {REAL / name}")
    data = Images(None, str(REAL / name), resolution=resolution, channels=channels, classes=classes)
    assert (data.size("test"), data.shape) == (size, (resolution, resolution, channels))
    x, condition = data.rows("test", 0, size)
    assert np.unique(condition["label"]).tolist() == list(range(classes))
    stored = data._stored.splits["test"][size - 1]["image"]
    np.testing.assert_array_equal(x[-1], np.asarray(stored).reshape(data.shape))
