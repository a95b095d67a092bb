"""Images in more files than fit in memory or on disk, decoded when they are used."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from sgm.checks import check_count
from sgm.data.base import Record, check_batch_size, check_split, holdout, mirrored
from sgm.data.images import AbstractImages

# A few shares for each worker, so that one with large images holds up none of the others.
_SHARES = 4
# More threads than this would wait for one another.
_MOST_WORKERS = 16


@dataclasses.dataclass(frozen=True)
class ImageStream(AbstractImages):
    """Images and their classes in parquet files of the HuggingFace hub or a folder, read while a model trains.

    Nothing is copied to disk, and the examples that are held in memory do not grow with the data. Images are prepared
    as by `Images`, each time that they are used.

    An epoch takes the row groups of all files in a random order, and shuffles the rows of as many as fit half of the
    buffer, while the other half is filled. Each example comes once an epoch. Any batch is a function of step, size and
    seed. To begin at any step, and so to resume a run, takes the footers of all files, which are read once, and half a
    buffer of rows; nothing before that step is read.

    Several processes decode the images of their own part of each batch. Each of them reads all row groups.

    Where no split test or validation is stored, whole row groups, chosen at random, are held out as the split "test".

    Arguments:
        name: Data set of the HuggingFace hub, such as "ILSVRC/imagenet-1k".
        path: Folder that is read instead, of parquet files (`train*.parquet`, `test*.parquet`).
        resolution: Height and width in pixels, or one number for both.
        channels: Number of channels: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha).
        flip: Whether training images are mirrored left to right, each with probability 1/2.
        classes: Number of classes. The class is then the condition "label": the first column of class labels, or else
            the column named label, of whole numbers from 0.
        levels: Number of grey levels: 256, or 65536 for files of 16 bits a channel.
        background: Colour on which transparent pixels are laid, such as "white" or "#8080ff" (see `PIL.ImageColor`).
        buffer: Number of encoded images that are held in memory, unless a row group is larger than half of it. More are
            mixed better.
        held_out: Share of the row groups that is held out as the split "test" where none is stored, at least one of two
            or more.
        workers: Number of threads that decode images, by default one for each processor, at most 16. Batches do not
            depend on it.

    Raises:
        TypeError: for a buffer or a number of workers that is not whole.
        ValueError: for an argument out of range, an image that cannot be read or has another depth, or a missing label.
        DataUnavailable: for data that cannot be read or downloaded, and for files other than parquet.

    Example:
        >>> data = ImageStream(path="photographs", resolution=32, classes=3, buffer=20_000)
        >>> x, fields = data.batch(1_000_000, 64, seed=0)
        >>> x.shape, x.dtype, fields["label"].shape
        ((64, 32, 32, 3), dtype('uint8'), (64,))
    """

    name: str | None = None
    path: str | None = None
    resolution: int | tuple[int, int] = 64
    channels: int = 3
    flip: bool = False
    classes: int | None = None
    levels: Literal[256, 65536] = 256
    background: str = "white"
    buffer: int = 10_000
    held_out: float = 0.1
    workers: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check_count("ImageStream", "buffer", self.buffer, 2)
        if self.workers is not None:
            check_count("ImageStream", "workers", self.workers)
        if not 0 <= self.held_out < 1:
            raise ValueError(f"ImageStream: held_out is {self.held_out}; give a share of at least 0, less than 1.")

    def size(self, split: str) -> int:
        check_split(split)
        return self._splits[split].rows

    def rows(self, split: str, start: int, stop: int) -> Record:
        check_split(split)
        groups = self._splits[split]
        start, stop, _ = slice(start, stop).indices(groups.rows)
        ends = np.cumsum(groups.sizes)
        first, last = np.searchsorted(ends, [start, stop - 1], "right") if start < stop else (0, -1)
        rows = [row for group in range(int(first), int(last) + 1) for row in self._read(split, group)]
        skipped = start - int(ends[first - 1]) if first else start
        return self._prepared(split, rows[skipped : skipped + max(0, stop - start)])

    def batch(self, step: int, batch_size: int, seed: int) -> Record:
        return self.part_of_batch(step, batch_size, seed, 0, batch_size)

    def part_of_batch(self, step: int, batch_size: int, seed: int, start: int, stop: int) -> Record:
        check_batch_size(batch_size)
        rows = self._shuffled.take(seed, step * batch_size + start, step * batch_size + stop)
        x, condition = self._prepared("train", rows)
        return mirrored(x, step, batch_size, seed, start) if self.flip else x, condition

    def _prepared(self, split: str, rows: Sequence[Any]) -> Record:
        def prepare(share):
            return [preparation(row, number) for number, row in share]

        preparation, size = self._preparations[split], max(1, len(rows) // (_SHARES * self._threads))
        shares = [rows[start : start + size] for start in range(0, len(rows), size)]
        prepared = [row for share in self._pool.map(prepare, shares) for row in share]
        return self.record([row["pixels"] for row in prepared], [row["label"] for row in prepared if self.classes])

    @functools.cached_property
    def _stored(self) -> Any:
        from sgm.data import prepare

        return prepare.StoredShards(self.name, self.path, self.classes)

    @functools.cached_property
    def _splits(self) -> Mapping[str, Any]:
        """The row groups of each split."""
        train = self._stored.groups("train")
        if self._stored.test:
            return {"train": train, "test": self._stored.groups(self._stored.test)}
        test, kept = holdout(len(train.sizes), self.held_out)
        return {"train": train.select(kept), "test": train.select(test)}

    @functools.cached_property
    def _preparations(self) -> Mapping[str, Any]:
        stored = {"train": "train", "test": self._stored.test or "train"}
        how = self.shape, self.levels, self.background
        return {split: self._stored.preparation(name, *how) for split, name in stored.items()}

    @functools.cached_property
    def _shuffled(self) -> Any:
        from sgm.data.shards import Shuffled

        groups, columns = self._splits["train"], self._stored.columns
        return Shuffled(groups, lambda group: groups.read(group, columns), self.buffer // 2)

    @functools.cached_property
    def _read(self) -> Callable[[str, int], Any]:
        """Rows of a row group; the last one is kept, since rows are mostly asked for in order."""
        return functools.lru_cache(1)(lambda split, group: self._splits[split].read(group, self._stored.columns))

    @functools.cached_property
    def _threads(self) -> int:
        return self.workers or min(os.cpu_count() or 1, _MOST_WORKERS)

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
