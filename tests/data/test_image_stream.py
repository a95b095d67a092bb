"""Images of many parquet files. Image i of all training files has the level i, and the class i mod 3."""

import collections
import gc
import pathlib
import threading
import time
import weakref

import datasets
import huggingface_hub
import jax.random as jr
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
from huggingface_hub.utils import httpx
from pictures import unavailable, write_parquet

import sgm
from sgm.data import DataUnavailable, Images, ImageStream, prefetch
from sgm.data.shards import RowGroups, Shuffled
from sgm.nn.conditioning import Conditioning

FILES, ROWS, GROUP = 5, 21, 4  # A file has five row groups of 4 and one of 1.
SIZE = FILES * ROWS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def empty(tmp_path):
    """A folder; `datasets` would take the name of a test for that of a split."""
    path = tmp_path / "images"
    path.mkdir()
    return path


def write(file, levels, labels=None, group=GROUP):
    labels = [level % 3 for level in levels] if labels is None else labels
    write_parquet(file, [PIL.Image.new("L", (4, 4), level) for level in levels], labels)
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(file), file, row_group_size=group)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    for file in range(FILES):
        write(path / f"train-{file:05}-of-{FILES:05}.parquet", range(file * ROWS, (file + 1) * ROWS))
    write(path / "test-00000-of-00001.parquet", range(200, 211))
    return path


def stream(folder, **options):
    return ImageStream(path=str(folder), **{"resolution": 4, "channels": 1, "classes": 3, "buffer": 32} | options)


def order(data, steps, batch_size, seed=0):
    return np.concatenate([data.batch(step, batch_size, seed)[0][:, 0, 0, 0] for step in steps])


@pytest.fixture
def reads(monkeypatch):
    """Counts how often each row group is read."""
    counts, read = collections.Counter(), RowGroups.read

    def counted(self, group, columns):
        counts[group] += 1
        return read(self, group, columns)

    monkeypatch.setattr(RowGroups, "read", counted)
    return counts


def test_it_has_what_images_reads_from_the_same_files(folder):
    data, stored = stream(folder), Images(None, str(folder), resolution=4, channels=1, classes=3)
    assert (data.shape, data.levels, data.conditioning) == ((4, 4, 1), 256, Conditioning(classes=3))
    for split, size in (("train", SIZE), ("test", 11)):
        assert data.size(split) == stored.size(split) == size
        for start, stop in ((0, size), (3, 4), (7, 9), (size - 2, size + 9), (size, size + 1), (5, 5), (6, 2)):
            (x, fields), (expected, of_stored) = data.rows(split, start, stop), stored.rows(split, start, stop)
            np.testing.assert_array_equal(x, expected)
            np.testing.assert_array_equal(fields["label"], of_stored["label"])
            assert (x.dtype, fields["label"].dtype) == (np.uint8, np.int32)


def test_every_example_comes_once_an_epoch_and_epochs_differ(folder):
    epochs = order(stream(folder), range(63), 5).reshape(3, SIZE)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(SIZE), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_labels_stay_with_their_images(folder):
    x, fields = stream(folder).batch(2, 40, seed=1)
    np.testing.assert_array_equal(fields["label"], x[:, 0, 0, 0] % 3)
    assert stream(folder, classes=None).batch(2, 40, seed=1)[1] == {}


@pytest.mark.parametrize("batch_size", [1, 7, 40, SIZE, 2 * SIZE + 3])
def test_batches_of_any_size_cut_one_sequence(folder, batch_size):
    expected = order(stream(folder), range(2), 150)
    steps = range(300 // batch_size + 1)
    np.testing.assert_array_equal(order(stream(folder), steps, batch_size)[:300], expected)


@pytest.mark.parametrize("step", [1, 5, 6, 17, 1_000_000])
def test_a_run_that_begins_at_any_step_has_the_same_batches(folder, step):
    whole = stream(folder)
    whole.batch(step - 1, 8, seed=3)
    again = stream(folder)
    for number in (step, step + 1, step + 2, 0, step):
        np.testing.assert_array_equal(whole.batch(number, 8, 3)[0], again.batch(number, 8, 3)[0])
    assert not np.array_equal(order(whole, range(5), 8, seed=3), order(whole, range(5), 8, seed=4))


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_run_that_was_killed_goes_on_with_the_batches_it_would_have_seen(folder, tmp_path, monkeypatch):
    def train(run, data):
        model = sgm.ScoreModel(sgm.nn.MLP(data.shape, 8, 1, key=jr.key(0)), data=data)
        how = {"steps": 8, "batch_size": 16, "checkpoint_every": 4, "log_every": 4, "progress": False}
        return sgm.train(sgm.VP(), model, data, jr.key(1), run=run, **how)[2]["loss"]

    def killed(self, step, *others):
        if step == 6:
            raise KeyboardInterrupt
        return part(self, step, *others)

    whole, part = train(tmp_path / "whole", stream(folder, classes=None)), ImageStream.part_of_batch
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ImageStream, "part_of_batch", killed)
        train(tmp_path / "killed", stream(folder, classes=None))
    np.testing.assert_array_equal(train(tmp_path / "killed", stream(folder, classes=None, workers=2)), whole)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_parts_of_several_processes_make_the_batch(folder, processes):
    whole, parts = stream(folder, flip=True), [stream(folder, flip=True) for _ in range(processes)]
    for step in (0, 1, 40):
        x, fields = whole.batch(step, 16, seed=2)
        share = 16 // processes
        read = [part.part_of_batch(step, 16, 2, i * share, (i + 1) * share) for i, part in enumerate(parts)]
        np.testing.assert_array_equal(np.concatenate([x for x, _ in read]), x)
        np.testing.assert_array_equal(np.concatenate([of_part["label"] for _, of_part in read]), fields["label"])


def test_a_row_group_is_read_once_an_epoch(folder, reads):
    data = stream(folder)
    order(data, range(21), 5)
    assert len(reads) == 30 and set(reads.values()) <= {1, 2}  # The next epoch may have begun.
    assert sum(reads.values()) <= 30 + 16


def test_to_begin_at_a_late_step_reads_no_more_than_half_the_buffer(folder, reads):
    stream(folder).batch(10**6, 1, seed=0)
    assert sum(reads.values()) <= 16  # At most 16 rows, in groups of 4 and of 1.


def test_images_are_decoded_only_for_the_own_part(folder, monkeypatch):
    from sgm.data import prepare

    decoded, read = [], prepare.read_pixels
    monkeypatch.setattr(prepare, "read_pixels", lambda *args: decoded.append(1) or read(*args))
    stream(folder).part_of_batch(10**6, 16, 0, 4, 8)
    assert len(decoded) == 4


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"workers": 7}])
def test_batches_do_not_depend_on_the_number_of_workers(folder, options):
    for step in range(4):
        x, expected = stream(folder, **options).batch(step, 50, 0)[0], stream(folder).batch(step, 50, 0)[0]
        np.testing.assert_array_equal(x, expected)


def test_flips_half_of_the_images(empty):
    pictures = [PIL.Image.fromarray(np.asarray([[0, 255]], np.uint8))] * 40
    write_parquet(empty / "train.parquet", pictures)
    write_parquet(empty / "test.parquet", pictures)
    data = ImageStream(path=str(empty), resolution=(1, 2), channels=1, flip=True)
    x, _ = data.batch(0, 4000, seed=0)
    assert abs((x[:, 0, 0, 0] == 255).mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    assert np.all(data.rows("train", 0, 40)[0][:, 0, 0, 0] == 0)


def test_whole_row_groups_are_held_out_where_no_test_is_stored(empty):
    for file in range(3):
        write(empty / f"train-{file}.parquet", range(20 * file, 20 * (file + 1)))
    data = stream(empty, held_out=0.2)
    test, train = (data.rows(split, 0, 99)[0][:, 0, 0, 0] for split in ("test", "train"))
    assert (data.size("test"), data.size("train")) == (12, 48)
    np.testing.assert_array_equal(np.sort(np.concatenate([test, train])), np.arange(60))
    np.testing.assert_array_equal(test.reshape(3, 4) % 4, np.tile(np.arange(4), (3, 1)))
    np.testing.assert_array_equal(np.sort(order(data, range(6), 8)), train)
    assert stream(empty, held_out=0.0).size("test") == 0


@pytest.mark.filterwarnings("error")
def test_a_row_group_larger_than_half_the_buffer_is_told(folder):
    stream(folder, buffer=8).batch(0, 2, 0)
    coarse = stream(folder, buffer=6)
    with pytest.warns(UserWarning, match="a row group of 4 rows is larger than half the buffer"):
        epoch = order(coarse, range(21), 5)
    np.testing.assert_array_equal(np.sort(epoch), np.arange(SIZE))


class Example:
    """A row whose life can be watched."""


def test_no_more_than_the_buffer_is_held_however_many_rows_there_are():
    most = []
    for count in (20, 400):
        living = weakref.WeakSet()
        sizes = np.full(count, 10)
        groups = RowGroups(("",), np.zeros((count, 2), int), np.cumsum(sizes) - sizes, sizes)

        def read(group, living=living):
            rows = [(10 * group + place, {"row": Example()}) for place in range(10)]
            living.update(row["row"] for _, row in rows)
            return rows

        shuffled, peak = Shuffled(groups, read, window=50), 0
        for start in range(0, 10 * count, 25):
            assert len(shuffled.take(0, start, start + 25)) == 25
            shuffled._filler.submit(int).result()  # The next window is there.
            peak = max(peak, len(living))
        most.append(peak)
    assert most == [100, 100]


def test_rows_of_a_window_are_mixed_and_those_of_others_are_not():
    sizes = np.full(12, 10)
    groups = RowGroups(("",), np.zeros((12, 2), int), np.cumsum(sizes) - sizes, sizes)
    shuffled = Shuffled(groups, lambda group: [(10 * group + place, {}) for place in range(10)], window=40)
    numbers = np.asarray([number for number, _ in shuffled.take(0, 0, 120)]).reshape(3, 40)
    of_window = [set(row // 10) for row in numbers]
    assert all(len(groups) == 4 for groups in of_window) and len(set.union(*of_window)) == 12
    assert all(len(set(row[:10] // 10)) > 1 for row in numbers)


def test_a_broken_image_is_named_at_its_step(empty):
    write(empty / "train.parquet", range(40))
    write(empty / "test.parquet", range(2))
    table = pyarrow.parquet.read_table(empty / "train.parquet")
    rows = table.to_pylist()
    rows[13]["image"]["bytes"] = b"no image"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), empty / "train.parquet")
    seen, data = [], stream(empty, buffer=100, workers=3)
    with pytest.raises(ValueError, match=r"image 13 of split 'train' of the folder .* cannot be read"):
        for x, _ in prefetch(lambda step: data.batch(step, 4, 0), 0, 10):
            seen += x[:, 0, 0, 0].tolist()
    write(empty / "train.parquet", range(40), group=40)
    expected = order(stream(empty, buffer=100), range(10), 4).tolist()
    assert seen == expected[: len(seen)] and 13 in expected[len(seen) : len(seen) + 4]


def test_a_file_that_cannot_be_read_is_named_at_each_try(folder, empty):
    for file in sorted(folder.iterdir()):
        (empty / file.name).write_bytes(file.read_bytes())
    data = stream(empty)
    data.batch(0, 1, 0)
    lost = empty / "train-00002-of-00005.parquet"
    content = lost.read_bytes()
    lost.unlink()
    for _ in range(2):
        with pytest.raises(DataUnavailable, match=r"train-00002-of-00005.parquet cannot be read .*: mend it, or leave"):
            data.batch(1, SIZE, 0)
    lost.write_bytes(content)
    np.testing.assert_array_equal(data.batch(1, SIZE, 0)[0], stream(folder).batch(1, SIZE, 0)[0])


def test_threads_end_with_the_data_set(folder):
    data = stream(folder, workers=2)
    order(data, range(3), 8)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith(("decode", "fill", "read"))]
    names = {thread.name for thread in ours}
    assert {"decode_0", "fill_0", "read_0"} <= names
    del data
    deadline = time.monotonic() + 10
    while any(thread.is_alive() for thread in ours) and time.monotonic() < deadline:
        gc.collect()  # More than once: a window that is being read keeps the stream until it is there.
        time.sleep(0.1)
    assert not any(thread.is_alive() for thread in ours)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer": 1}, r"ImageStream: buffer = 1; pass buffer >= 2"),
        ({"workers": 0}, r"ImageStream: workers = 0; pass workers >= 1"),
        ({"held_out": 1.0}, r"ImageStream: held_out is 1.0; give a share of at least 0, less than 1"),
        ({"resolution": 0}, r"resolution is 0: images need at least 1 pixel a side"),
    ],
)
def test_arguments_out_of_range(folder, options, words):
    with pytest.raises(ValueError, match=words):
        stream(folder, **options)


def test_classes_that_are_not_those_of_the_files(folder, empty):
    with pytest.raises(ValueError, match="has 3 classes, but classes is 4: give their number"):
        stream(folder, classes=4).batch(0, 1, 0)
    write(empty / "train.parquet", range(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="has labels of type string, whose classes are not known before all are read"):
        stream(empty).batch(0, 1, 0)


def test_other_files(empty):
    PIL.Image.new("L", (4, 4)).save(empty / "0.png")
    with pytest.raises(DataUnavailable, match=r"has other files than .parquet: read it with sgm.data.Images"):
        stream(empty).size("train")
    assert "there is no folder" in unavailable(stream(empty / "nowhere"))
    (empty / "broken").mkdir()
    (empty / "broken" / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataUnavailable, match="cannot be read"):
        stream(empty / "broken").size("train")


def test_a_data_set_of_the_hub(folder, monkeypatch):
    load = datasets.load_dataset_builder
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name: load(str(folder)))
    data = ImageStream("someone/something", resolution=4, channels=1)
    np.testing.assert_array_equal(data.rows("test", 0, 2)[0][:, 0, 0, 0], [200, 201])

    def no_network(self, name, timeout):
        raise httpx.ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", no_network)
    assert unavailable(ImageStream("someone/something")).startswith(
        "the data set someone/something is not to be had from the HuggingFace hub ([Errno -2] Name or service not "
        "known): connect to the internet, or "
    )


def test_a_connection_that_is_lost_while_a_file_is_read_is_told(folder, monkeypatch):
    data = stream(folder)
    data.batch(0, 1, 0)

    def lost(*_):
        raise httpx.ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr("sgm.data.shards.fsspec.open", lost)
    with pytest.raises(DataUnavailable, match=r"cannot be read \(\[Errno -2\] Name or service not known\)"):
        data.batch(1, SIZE, 0)


def test_reading_a_file_over_a_network_address(folder):
    """Files of a hub have addresses; fsspec's memory stands in for one."""
    import fsspec

    file = sorted(pathlib.Path(folder).glob("test*"))[0]
    with fsspec.open("memory://images/test.parquet", "wb") as copy:
        copy.write(file.read_bytes())
    groups = RowGroups.of(["memory://images/test.parquet"])
    assert groups.sizes.tolist() == [4, 4, 3] and groups.firsts.tolist() == [0, 4, 8]
    assert [(number, row["label"]) for number, row in groups.read(2, ("label",))] == [(8, 1), (9, 2), (10, 0)]
