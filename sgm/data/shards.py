"""Rows of many parquet files, read a row group at a time, in a random order in which any position is found at once.

`datasets` streams as well, but its shuffle buffer is lost when a stream is resumed. Here the order is a function of the
seed and the position: an epoch takes the row groups of all files in a random order, packs them into windows, and
shuffles the rows of each window. The footers of the files say how many rows each group has, so that the window of any
position is known before anything is read.
"""

import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
from huggingface_hub.utils import httpx

from sgm.data.base import DataUnavailable

# A row with its number in stored order.
Row = tuple[int, dict[str, Any]]
# Most of the time of reading goes by in waiting for a disk or a server.
_READERS = 8
# Keeps the stream of a window apart from those of an epoch and of flips, as NumPy pads seeds with zeros.
_WINDOW_STREAM = 1


@dataclasses.dataclass(frozen=True, eq=False)
class RowGroups:
    """Row groups of parquet files.

    Arguments:
        files: Paths or addresses of all files.
        places: The position of the file in `files`, and the number in that file, of each row group, (groups, 2).
        firsts: Number of the first row of each in stored order, (groups,).
        sizes: Number of rows of each, (groups,).
    """

    files: tuple[str, ...]
    places: np.ndarray
    firsts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, files: Sequence[str]) -> "RowGroups":
        """All row groups of files, in stored order. Only the footers are read.

        Raises DataUnavailable for a file that cannot be read.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            sizes = list(pool.map(_sizes, files))
        places = [(file, number) for file, of_file in enumerate(sizes) for number in range(len(of_file))]
        flat = np.concatenate([np.asarray(of_file, np.int64) for of_file in sizes])
        return cls(tuple(files), np.asarray(places).reshape(-1, 2), np.cumsum(flat) - flat, flat).select(flat > 0)

    def select(self, kept: np.ndarray) -> "RowGroups":
        """Some of them, by their positions or by booleans."""
        return RowGroups(self.files, self.places[kept], self.firsts[kept], self.sizes[kept])

    @property
    def rows(self) -> int:
        """Number of rows of all together."""
        return int(self.sizes.sum())

    def read(self, group: int, columns: Sequence[str]) -> list[Row]:
        """The rows of a row group, as they are stored. Raises DataUnavailable where they cannot be read."""
        file, number = self.places[group]
        table = _parquet(self.files[file], lambda opened: opened.read_row_group(number, list(columns)))
        return list(enumerate(table.to_pylist(), int(self.firsts[group])))


class Shuffled:
    """The endless sequence of the rows of row groups, epoch after epoch, each in a new order.

    At most two windows are held: the one that is used, and the next, which is read by threads meanwhile.

    Arguments:
        groups: Row groups.
        read: Function that reads one of them by its position.
        window: Largest number of rows that are mixed with one another. A larger row group is a window by itself.
    """

    def __init__(self, groups: RowGroups, read: Callable[[int], list[Row]], window: int):
        self.groups, self.window = groups, window
        self._read = read
        self._held: dict[tuple[int, int, int], Future[list[Row]]] = {}
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._filler = ThreadPoolExecutor(1, thread_name_prefix="fill")
        self._plan = functools.lru_cache(maxsize=4)(self._planned)
        if len(groups.sizes) > 1 and groups.sizes.max() > window:
            warnings.warn(
                f"a row group of {groups.sizes.max()} rows is larger than half the buffer, so that its rows come one "
                "after the other; pass a buffer of several row groups, or store smaller ones.",
                stacklevel=2,
            )

    def take(self, seed: int, start: int, stop: int) -> list[Row]:
        """The rows at positions start ... stop - 1."""
        taken: list[Row] = []
        while start < stop:
            epoch, place = divmod(start, self.groups.rows)
            ends = self._plan(seed, epoch)[2]
            window = int(np.searchsorted(ends, place, "right"))
            rows = self._rows(seed, epoch, window)
            begin = len(rows) - (int(ends[window]) - place)
            part = rows[begin : begin + stop - start]
            taken += part
            start += len(part)
        return taken

    def _planned(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The order of the groups in an epoch, the place of each window's end in it, and its number of rows so far."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self.groups.sizes))
        rows = np.cumsum(self.groups.sizes[order])
        stops, start = [], 0
        while start < len(order):
            before = rows[start - 1] if start else 0
            start = max(start + 1, int(np.searchsorted(rows, before + self.window, "right")))
            stops.append(start)
        stops = np.asarray(stops)
        return order, stops, rows[stops - 1]

    def _rows(self, seed: int, epoch: int, window: int) -> list[Row]:
        current = seed, epoch, window
        is_last = window + 1 == len(self._plan(seed, epoch)[1])
        following = (seed, epoch + 1, 0) if is_last else (seed, epoch, window + 1)
        with self._lock:
            for key in set(self._held) - {current, following}:
                del self._held[key]
            # A call that comes back to a window goes forward. A single look, as at the first batch, reads no further.
            for key in (current, following) if current in self._held else (current,):
                if key not in self._held:
                    self._held[key] = self._filler.submit(self._fill, *key)
            filled = self._held[current]
        try:
            return filled.result()
        except Exception:
            with self._lock:  # What failed once, as a server may, is read again when it is asked for again.
                self._held.pop(current, None)
            raise

    def _fill(self, seed: int, epoch: int, window: int) -> list[Row]:
        order, stops, _ = self._plan(seed, epoch)
        groups = order[stops[window - 1] if window else 0 : stops[window]]
        rows = [row for of_group in self._readers.map(self._read, groups.tolist()) for row in of_group]
        random = np.random.default_rng((seed, epoch, window, _WINDOW_STREAM))
        return [rows[place] for place in random.permutation(len(rows))]


def _sizes(file: str) -> list[int]:
    footer = _parquet(file, lambda opened: opened.metadata)
    return [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]


def schema_of(file: str) -> pyarrow.Schema:
    """The schema of a parquet file. Raises DataUnavailable for one that cannot be read."""
    return _parquet(file, lambda opened: opened.schema_arrow)


def _parquet(file: str, look: Callable[[pyarrow.parquet.ParquetFile], Any]) -> Any:
    try:
        with fsspec.open(file, "rb") as stream, pyarrow.parquet.ParquetFile(stream) as opened:
            return look(opened)
    except (OSError, httpx.HTTPError, pyarrow.ArrowException) as error:
        said = (str(error) or type(error).__name__).strip().partition("\n")[0]
        raise DataUnavailable(f"{file} cannot be read ({said}): mend it, or leave it out") from None
