"""What a data set is, and the two things every training loop does with one: order it and fetch ahead.

A record is `(x, condition)`: a batch of examples and the fields that may condition a model of them, all as NumPy arrays
on the host. Scaling grey levels to a model's range, dequantisation and placement on devices are the caller's.
"""

import abc
import collections
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from sgm.nn.conditioning import Conditioning
from sgm.nn.units import Units

Record = tuple[np.ndarray, dict[str, np.ndarray]]
"""x of shape (batch, *shape), and the fields of its condition, each optional: "params", float32 (batch, params);
"label", int32 (batch,); "image", float32 (batch, *space, channels)."""

T = TypeVar("T")

# Must not be zero: NumPy pads seeds with zeros, so (seed, step, 0) would repeat the stream (seed, step).
_FLIP_STREAM = 1
# On so many training examples units are fitted, and so many entries of them are held at once.
_FITTED = 100_000
_CHUNK_ENTRIES = 2**20


class DataUnavailable(Exception):
    """A data set can not be had from where it was asked for; the message is one line that ends with the remedy."""


def first_line(error: Exception) -> str:
    """The first line of what an error says, or the name of its kind."""
    return (str(error) or type(error).__name__).strip().split("\n")[0]


class AbstractDataset(abc.ABC):
    """Examples to train on and to evaluate on, in two splits: "train" and "test".

    A data set is a frozen dataclass of plain settings, so it can stand in a configuration; data are loaded on first use
    and are no part of its equality.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one example; images are (height, width, channels)."""

    @property
    def levels(self) -> int | None:
        """Number of grey levels: x is uint8 in 0 ... levels - 1, or uint16 where they are more than 256.

        None: x is float32, as by default.
        """
        return None

    @property
    def conditioning(self) -> Conditioning:
        """What a network conditioned on the records is built for; nothing by default."""
        return Conditioning()

    @property
    def missing(self) -> bool:
        """Whether entries of x may be missing, which are nan."""
        return False

    def statistics(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and standard deviation of the training examples' "params", float32 (params,) each; None without them."""
        return None

    @functools.cached_property
    def units(self) -> Units:
        """The units of x: of grey levels, or else fitted on the training examples, at most 100,000, evenly spaced."""
        return Units.fit(self._chunks(), self.missing) if self.levels is None else Units.of_levels(self.levels)

    @property
    def entropy(self) -> float | None:
        """The entropy of the data in nats, which no model's mean of -log p is below; None where it is not known."""
        return None

    def exact_log_prob(self, x: np.ndarray, fields: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """log p of each example given its fields, in nats, which no model beats; None where it is not known."""
        return None

    def figures(self, sde: Any, model: Any, draw: Callable[[Mapping[str, np.ndarray], int], Any]) -> dict[str, Any]:
        """Draw what only this data set can show of a trained model; nothing by default.

        Arguments:
            sde: Process.
            model: Model.
            draw: Function that draws n samples, one for each condition of `fields`, by `draw(fields, n)`.

        Returns:
            Figures of Matplotlib, by the names of their files.
        """
        return {}

    @abc.abstractmethod
    def size(self, split: str) -> int:
        """Number of examples of a split. Raises ValueError if `split` is neither "train" nor "test"."""

    @abc.abstractmethod
    def rows(self, split: str, start: int, stop: int) -> Record:
        """Examples start ... stop - 1 of a split in stored order, cut off at its end as slices are."""

    @abc.abstractmethod
    def batch(self, step: int, batch_size: int, seed: int) -> Record:
        """The training batch of a step: a function of its arguments alone, so a resumed run repeats what it would see.

        Raises ValueError if `batch_size` is below 1.
        """

    def part_of_batch(self, step: int, batch_size: int, seed: int, start: int, stop: int) -> Record:
        """Examples start ... stop - 1 of the training batch of a step: those that one process of several trains on."""
        x, fields = self.batch(step, batch_size, seed)
        return x[start:stop], {name: values[start:stop] for name, values in fields.items()}

    def _chunks(self) -> Iterator[np.ndarray]:
        """The training examples on which units are fitted, a few at a time."""
        for start, stop in fitted_blocks(self.size("train"), math.prod(self.shape)):
            yield self.rows("train", start, stop)[0]


class AbstractFiniteDataset(AbstractDataset):
    """A stored set of examples, visited epoch after epoch, each epoch in a new order.

    Training position p = step * batch_size + i is example permutation_e[p mod N] of epoch e = p div N, where the
    permutation depends on (seed, e). Batches therefore straddle epochs, and may be larger than the data set.
    """

    @property
    def flip(self) -> bool:
        """Whether training images are mirrored left to right, each with probability 1/2."""
        return False

    @abc.abstractmethod
    def take(self, split: str, index: np.ndarray) -> Record:
        """The examples of a split at the given positions in stored order, shape (batch,)."""

    def rows(self, split: str, start: int, stop: int) -> Record:
        return self.take(split, np.arange(self.size(split))[start:stop])

    def batch(self, step: int, batch_size: int, seed: int) -> Record:
        return self._rows_of_batch(step, batch_size, seed, 0, batch_size)

    def part_of_batch(self, step: int, batch_size: int, seed: int, start: int, stop: int) -> Record:
        if type(self).batch is not AbstractFiniteDataset.batch:  # A subclass changes its batches.
            return super().part_of_batch(step, batch_size, seed, start, stop)
        return self._rows_of_batch(step, batch_size, seed, start, stop)

    def _rows_of_batch(self, step, batch_size, seed, start, stop):
        check_batch_size(batch_size)
        size = self.size("train")
        epochs, places = np.divmod(step * batch_size + np.arange(start, stop), size)
        orders = [_permutation(size, seed, int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        x, condition = self.take("train", np.concatenate(orders))
        return mirrored(x, step, batch_size, seed, start) if self.flip else x, condition


@functools.lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def mirrored(x: np.ndarray, step: int, batch_size: int, seed: int, start: int) -> np.ndarray:
    """Images of a batch, from its example `start` on, mirrored left to right, each with probability 1/2."""
    flipped = np.random.default_rng((seed, step, _FLIP_STREAM)).random(batch_size)[start : start + len(x)] < 0.5
    return np.where(flipped[:, None, None, None], x[:, :, ::-1], x)


def fitted_blocks(size: int, entries: int) -> Iterator[tuple[int, int]]:
    """Ends of the blocks of rows on which moments are fitted: all rows, or 100,000 of more, in blocks evenly spaced.

    Arguments:
        size: Number of rows.
        entries: Numbers in a row, so that a block fits in memory.
    """
    block = max(1, _CHUNK_ENTRIES // entries)
    blocks = math.ceil(size / block)
    kept = min(blocks, math.ceil(_FITTED / block))
    for number in sorted({round(place) for place in np.linspace(0, blocks - 1, kept)}):
        yield number * block, min((number + 1) * block, size)


def holdout(size: int, share: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A random choice of rows to hold out, and the other rows, both in increasing order.

    Arguments:
        size: Number of rows.
        share: Share of them that is held out, rounded down to whole rows, but at least one row of two or more. With 0,
            none is.
        seed: Seed of the choice, a function of which it is.
    """
    count = max(int(size * share), min(1, size - 1)) if share else 0
    order = np.random.default_rng(seed).permutation(size)
    return np.sort(order[:count]), np.sort(order[count:])


def check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f'unknown split {split!r}: a data set has the splits "train" and "test"')


def check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: a batch needs at least 1 example")


def prefetch(make: Callable[[int], T], start: int, stop: int, ahead: int = 2) -> Iterator[T]:
    """Compute make(start), ..., make(stop - 1) in one thread, up to `ahead` of them before they are needed.

    Closing the iterator, as leaving a `for` loop does, drops what has not begun and waits for the call in progress.

    Arguments:
        make: Function of a step.
        start: First step.
        stop: Step after the last.
        ahead: Number of results that may wait.

    Returns:
        An iterator over the results, in order. An exception of `make` is raised at the step it belongs to.

    Raises:
        ValueError: for `ahead` below 1, when the first result is asked for.

    Example:
        >>> batches = prefetch(lambda step: data.batch(step, 16, seed=0), start=0, stop=3)
        >>> [x.shape for x, fields in batches]
        [(16, 2), (16, 2), (16, 2)]
    """
    if ahead < 1:
        raise ValueError(f"ahead is {ahead}: prefetch needs room for at least 1 result")
    steps = iter(range(start, stop))
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        pending = collections.deque(pool.submit(make, step) for step in itertools.islice(steps, ahead))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(make, step) for step in itertools.islice(steps, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
