import dataclasses
import threading
import time
from typing import ClassVar

import numpy as np
import pytest

from sgm.data import AbstractFiniteDataset, prefetch
from sgm.nn.conditioning import Conditioning

pytestmark = pytest.mark.quick

SIZE = 10


@dataclasses.dataclass(frozen=True)
class Counting(AbstractFiniteDataset):
    """Image i is the row of two pixels (i, 100 + i), so that both its number and its direction can be read off."""

    flip: bool = False

    shape: ClassVar[tuple[int, ...]] = (1, 2, 1)
    levels: ClassVar[int | None] = 256
    conditioning: ClassVar[Conditioning] = Conditioning(classes=SIZE)

    def size(self, split):
        return SIZE

    def take(self, split, index):
        x = np.stack([index, 100 + index], axis=-1).astype(np.uint8)
        return x.reshape(-1, *self.shape), {"label": index.astype(np.int32)}


def order(steps, batch_size, seed=0):
    return np.concatenate([Counting().batch(step, batch_size, seed)[1]["label"] for step in steps])


def test_every_example_comes_once_an_epoch_and_epochs_differ():
    epochs = order(range(6), 5).reshape(3, SIZE)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(SIZE), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(tuple(epoch) != tuple(range(SIZE)) for epoch in epochs)


@pytest.mark.parametrize("batch_size", [1, 3, 7, SIZE, SIZE + 1, 3 * SIZE])
def test_batches_of_any_size_cut_one_sequence(batch_size):
    # 42 positions: batches of 3 and 7 straddle epochs, and batches of 11 and 30 hold more than one
    expected = order(range(42), 1)
    np.testing.assert_array_equal(order(range(42 // batch_size + 1), batch_size)[:42], expected)


def test_order_depends_on_seed_and_step_alone():
    data = Counting(flip=True)
    first = [data.batch(step, 4, seed=3) for step in range(8)]
    again = [Counting(flip=True).batch(step, 4, seed=3) for step in reversed(range(8))][::-1]
    for (x, condition), (x_again, condition_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(condition["label"], condition_again["label"])
    assert not np.array_equal(order(range(5), 4, seed=3), order(range(5), 4, seed=4))


def test_flips_half_of_the_images_and_no_labels():
    x, condition = Counting(flip=True).batch(0, 4000, seed=0)
    low, high = x[:, 0, 0, 0].astype(int), x[:, 0, 1, 0].astype(int)
    flipped = low > high
    np.testing.assert_array_equal(np.where(flipped, low - high, high - low), 100)
    np.testing.assert_array_equal(np.minimum(low, high), condition["label"])
    assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    other = Counting(flip=True).batch(1, 4000, seed=0)[0][:, 0, 0, 0] >= 100
    assert abs((flipped == other).mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_flips_leave_the_order_and_evaluation_alone():
    np.testing.assert_array_equal(
        Counting(flip=True).batch(2, 7, seed=1)[1]["label"], Counting().batch(2, 7, seed=1)[1]["label"]
    )
    x, _ = Counting(flip=True).rows("train", 0, SIZE)
    np.testing.assert_array_equal(x[:, 0, 0, 0], np.arange(SIZE))


def test_rows_slice_the_stored_order():
    np.testing.assert_array_equal(Counting().rows("test", 2, 5)[1]["label"], [2, 3, 4])
    np.testing.assert_array_equal(Counting().rows("test", 8, 12)[1]["label"], [8, 9])
    assert Counting().rows("test", 12, 14)[0].shape == (0, 1, 2, 1)


def test_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size is 0: a batch needs at least 1 example"):
        Counting().batch(0, 0, seed=0)


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_prefetch_keeps_order(ahead):
    assert list(prefetch(lambda step: step**2, 3, 20, ahead)) == [step**2 for step in range(3, 20)]
    assert list(prefetch(lambda step: step, 5, 5, ahead)) == []
    assert not prefetch_threads()


def test_prefetch_resumes_the_same_batches():
    def make(step):
        return Counting().batch(step, 3 * SIZE, seed=0)[1]["label"]

    whole, resumed = list(prefetch(make, 0, 6)), list(prefetch(make, 4, 6))
    np.testing.assert_array_equal(whole[4:], resumed)


def test_prefetch_works_ahead_and_no_further():
    made, reached = [], threading.Event()

    def make(step):
        made.append(step)
        if step == 3:
            reached.set()
        return step

    steps = prefetch(make, 0, 100, ahead=3)
    assert next(steps) == 0
    assert reached.wait(timeout=10)
    time.sleep(0.05)  # time enough to go too far
    assert made == [0, 1, 2, 3]
    steps.close()


def test_prefetch_raises_at_the_step_that_failed():
    def make(step):
        if step == 4:
            raise RuntimeError("step 4 is broken")
        return step

    seen = []
    with pytest.raises(RuntimeError, match="step 4 is broken"):
        for step in prefetch(make, 0, 10):
            seen.append(step)
    assert seen == [0, 1, 2, 3]
    assert not prefetch_threads()


def test_leaving_the_loop_stops_the_thread():
    made = []

    def make(step):
        time.sleep(1e-3)
        made.append(step)
        return step

    for step in prefetch(make, 0, 10**6, ahead=1000):
        if step == 2:
            break
    assert not prefetch_threads()
    assert len(made) < 500  # what waited was dropped, not made


def test_prefetch_needs_room():
    with pytest.raises(ValueError, match="ahead is 0: prefetch needs room for at least 1 result"):
        next(prefetch(lambda step: step, 0, 3, ahead=0))
