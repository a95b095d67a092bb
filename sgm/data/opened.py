"""A file of arrays, or several whose rows follow one another, opened by the endings of their names."""

import functools
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgm.data.base import DataUnavailable
from sgm.data.formats import AbstractFile, Folder, HDF5File, NpyFile, NpzFile, TableFile, ZarrFile
from sgm.data.stored import Source

# Fewer than the files that a process may open by default on any system.
_OPEN_SHARDS = 100


class Shards(AbstractFile):
    """Several files of the same arrays, whose rows follow one another.

    Arguments:
        files: The files, in order.
    """

    def __init__(self, files: Sequence[AbstractFile]):
        super().__init__(files[0].path)
        self._files = list(files)
        self._asked: dict[str, _InTurn] = {}

    @property
    def names(self):
        return self._files[0].names

    def array(self, name):
        """The array of one name. Each file has as many rows of it as of the one that was asked for first."""
        array = self._asked[name] = self._asked.get(name) or _InTurn(self._files, name)
        first, of_first = next(iter(self._asked.items()))
        for file, rows, expected in zip(self._files, array.lengths, of_first.lengths, strict=True):
            if rows != expected:
                raise ValueError(
                    f"{file.path}: the array {first!r} has {expected} rows, but {name!r} {rows}; store as many rows of "
                    "each, one for each example, or leave the file out."
                )
        return array


_FORMATS: dict[str, type[AbstractFile]] = {
    ".npy": NpyFile,
    ".npz": NpzFile,
    ".parquet": TableFile,
    ".csv": TableFile,
    ".h5": HDF5File,
    ".hdf5": HDF5File,
    ".hdf": HDF5File,
    ".zarr": ZarrFile,
}


def open_file(call: str, path: Any) -> AbstractFile:
    """Open a file of arrays, or several, by the endings of their names.

    Arguments:
        call: Name of the data set in messages.
        path: Path of a file, of a folder of .npy files, or of a Zarr store; or a pattern, as of `glob`, or a sequence
            of paths, for files whose rows follow one another.

    Raises:
        DataUnavailable: where there is no such file, or none of a known format.
    """
    paths = _matches(call, path) if isinstance(path, str | Path) else list(path)
    files = [_open_one(call, Path(one).expanduser()) for one in paths]
    if len(files) == 1:
        return files[0]
    if not files:
        raise DataUnavailable(f"{call}: path names no file; pass the path of one or more.")
    if all(isinstance(file, TableFile) for file in files) and len({file.path.suffix.lower() for file in files}) == 1:
        return TableFile(*(file.path for file in files))
    return Shards(files)


def _matches(call: str, path: str | Path) -> list[str]:
    """The paths that a pattern matches, in order of their names; a path that exists is none."""
    given = Path(path).expanduser()
    if given.exists() or not glob.has_magic(str(path)):
        return [str(given)]
    found = sorted(glob.glob(str(given), recursive=True))
    if not found:
        raise DataUnavailable(f"{call}: no file matches {path}; pass the path of one, or another pattern.")
    return found


def _open_one(call: str, path: Path) -> AbstractFile:
    if not path.exists():
        raise DataUnavailable(f"{call}: there is no file {path}; pass the path of one as path.")
    is_zarr = path.is_dir() and any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))
    kind = ZarrFile if is_zarr or path.name.endswith(".zarr.zip") else Folder if path.is_dir() else None
    kind = kind or _FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(_FORMATS)
        raise DataUnavailable(f"{call}: {path} is of no known format; pass one of {known}, or a folder of .npy files.")
    return kind(path)


class _InTurn:
    """The arrays of one name of several files, as one array. Some of the files are open at a time."""

    def __init__(self, files: Sequence[AbstractFile], name: str):
        self._files, self._name = files, name
        self._open = functools.lru_cache(_OPEN_SHARDS)(self._opened)
        arrays = (self._open(place) for place in range(len(files)))
        shapes, dtypes = zip(*((array.shape, array.dtype) for array in arrays), strict=True)
        for file, shape, dtype in zip(files, shapes, dtypes, strict=True):
            if not shape or shape[1:] != shapes[0][1:] or dtype.kind != dtypes[0].kind:
                raise ValueError(
                    f"{file.path}: the array {name!r} has shape {shape} and dtype {dtype}, but that of "
                    f"{files[0].path} {shapes[0]} and {dtypes[0]}; store arrays of one kind, or leave the file out."
                )
        self.lengths = [shape[0] for shape in shapes]
        self._ends = np.cumsum(self.lengths)
        self.shape = (int(self._ends[-1]), *shapes[0][1:])
        self.dtype = np.result_type(*dtypes)

    def _opened(self, place: int) -> Source:
        first, file = self._files[0], self._files[place]
        opened = type(file)(file.path)  # Anew, so that nothing keeps it open after it is left.
        if self._name not in opened.names:
            raise ValueError(
                f"{file.path}: there is no array {self._name!r}, which {first.path} has; add it, or leave the file out."
            )
        return opened.array(self._name)

    def __getitem__(self, index):
        index = np.asarray(index)
        files = np.searchsorted(self._ends, index, "right")
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        for file in np.unique(files):
            places = np.flatnonzero(files == file)
            array = self._open(int(file))
            rows[places] = array[index[places] - (int(self._ends[file]) - array.shape[0])]
        return rows
