"""Arrays in files, read row by row: .npy, .npz, .parquet, .csv, HDF5 and Zarr.

No file is loaded as a whole. NumPy's are mapped into memory, `datasets` maps tables, h5py and zarr read the chunks that
are asked for. The libraries are imported when a file of their format is opened.
"""

import abc
import contextlib
import functools
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgm.data.base import DataUnavailable, first_line
from sgm.data.stored import Source


class AbstractFile(abc.ABC):
    """A file of named arrays.

    Arguments:
        path: Path of the file.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of its arrays."""

    @abc.abstractmethod
    def array(self, name: str) -> Source:
        """The array of one of its names."""

    def columns(self, names: Sequence[str]) -> Source:
        """Arrays of numbers (rows,), side by side as (rows, columns)."""
        return _SideBySide({name: self.array(name) for name in names})


class NpyFile(AbstractFile):
    """A .npy file, whose array is called x."""

    @property
    def names(self):
        return ("x",)

    def array(self, name):
        with _reading(self.path):
            return np.load(self.path, mmap_mode="r")


class NpzFile(AbstractFile):
    """A .npz file. Arrays that are compressed are unpacked to a temporary folder, and mapped from there."""

    @functools.cached_property
    def names(self):
        with _reading(self.path), zipfile.ZipFile(self.path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())

    def array(self, name):
        with _reading(self.path), zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type == zipfile.ZIP_STORED:
                return self._mapped(member)
            return np.load(_unpacked(self.path, member.filename, self.path.stat().st_mtime_ns), mmap_mode="r")

    def _mapped(self, member):
        with self.path.open("rb") as file:
            file.seek(member.header_offset)
            header = file.read(30)
            # Lengths of the member's name and of what follows it, in the local header of the zip format.
            name, extra = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
            file.seek(member.header_offset + 30 + name + extra)
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, in_columns, dtype = read[version](file)
            if dtype.hasobject:
                raise ValueError(f"{member.filename} holds Python objects, not numbers")
            order = "F" if in_columns else "C"
            return np.memmap(self.path, dtype, "r", file.tell(), shape, order)


class TableFile(AbstractFile):
    """A .parquet or .csv file, or several, one below the other. An entry may be a list, of one shape in all rows.

    Arguments:
        path: Path of the first file.
        more: Paths of others of the same format.
    """

    def __init__(self, path: Path, *more: Path):
        super().__init__(path)
        self._paths = [path, *more]

    @functools.cached_property
    def names(self):
        return tuple(self._rows.column_names)

    def array(self, name):
        return _Column(self.path, self._rows, name)

    def columns(self, names):
        for name in names:
            dtype = self.array(name).dtype
            if dtype.kind not in "fiub":
                raise ValueError(
                    f"{self.path}: column {name!r} holds no numbers (dtype {dtype}); turn it into numbers or leave it "
                    "out of columns."
                )
        return super().columns(names)

    @functools.cached_property
    def _rows(self):
        import datasets

        self._check_columns()
        read: Any = datasets.Dataset.from_csv if self.path.suffix.lower() == ".csv" else datasets.Dataset.from_parquet
        datasets.disable_progress_bars()
        try:
            rows = read([str(path) for path in self._paths])
        except Exception as error:  # Of many kinds, by the reader.
            more = f", or one of the {len(self._paths) - 1} after it" if len(self._paths) > 1 else ""
            raise DataUnavailable(
                f"{self.path}{more}: it cannot be read as a table ({first_line(error)}); store it again, or leave it "
                "out."
            ) from error
        finally:
            datasets.enable_progress_bars()
        return rows.with_format("arrow")

    def _check_columns(self):
        """Raise unless all files have columns of the same names."""
        expected = _columns_of(self.path)
        for path in self._paths[1:]:
            found = _columns_of(path)
            if set(found) != set(expected):
                raise ValueError(
                    f"{path}: its columns are {', '.join(found)}, but those of {self.path} {', '.join(expected)}; "
                    "store the same columns, or leave the file out."
                )


class HDF5File(AbstractFile):
    """An HDF5 file, whose arrays in groups are called group/name."""

    @functools.cached_property
    def names(self):
        import h5py

        found = []
        self._file.visititems(lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None)
        return tuple(found)

    def array(self, name):
        return _InOrder(self._file[name])

    @functools.cached_property
    def _file(self):
        library = _library("h5py", self.path)
        with _reading(self.path):
            return library.File(self.path, "r")


class ZarrFile(AbstractFile):
    """A Zarr store, a folder or a .zip file. Arrays in groups are called group/name, an array alone is called x."""

    @functools.cached_property
    def names(self):
        import zarr

        if isinstance(self._store, zarr.Array):
            return ("x",)
        return tuple(name for name, node in self._store.members(max_depth=None) if isinstance(node, zarr.Array))

    def array(self, name):
        import zarr

        return _Orthogonal(self._store if isinstance(self._store, zarr.Array) else self._store[name])

    @functools.cached_property
    def _store(self):
        library = _library("zarr", self.path)
        with _reading(self.path):
            return library.open(str(self.path), mode="r")


class Folder(AbstractFile):
    """A folder of .npy files, whose names are those of its arrays."""

    @functools.cached_property
    def names(self):
        return tuple(sorted(path.stem for path in self.path.glob("*.npy")))

    def array(self, name):
        with _reading(path := self.path / f"{name}.npy"):
            return np.load(path, mmap_mode="r")


class _SideBySide:
    """Arrays (rows,), read as one array (rows, columns)."""

    def __init__(self, arrays: dict[str, Source]):
        sizes = {name: array.shape for name, array in arrays.items()}
        for name, shape in sizes.items():
            if len(shape) != 1:
                raise ValueError(f"the array {name!r} has shape {shape}; name it alone, or arrays of numbers (rows,).")
        if len(set(sizes.values())) > 1:
            raise ValueError(f"arrays have {sizes} rows; name arrays of as many rows.")
        self._arrays = list(arrays.values())
        self.shape = (*self._arrays[0].shape, len(arrays))
        self.dtype = np.result_type(np.float32, *(array.dtype for array in self._arrays))

    def __getitem__(self, index):
        return np.stack([array[index] for array in self._arrays], axis=-1).astype(self.dtype)


class _Column:
    """A column of an Arrow table."""

    def __init__(self, path, rows, name):
        self._path, self._name, self._rows = path, name, rows.select_columns([name])
        first = self[np.arange(min(1, len(rows)))]
        self.dtype, self.shape = first.dtype, (len(rows), *first.shape[1:])

    def __getitem__(self, index):
        import pyarrow.compute

        column = self._rows[np.asarray(index)].column(self._name).combine_chunks()
        shape: tuple[int, ...] = ()
        while pyarrow.types.is_nested(column.type):
            if isinstance(column, pyarrow.ExtensionArray):
                column = column.storage
                continue
            lengths = pyarrow.compute.call_function("list_value_length", [column]).unique().to_pylist()
            if None in lengths:
                raise ValueError(f"{self._path}: column {self._name!r} has rows without a list; leave them out.")
            if len(lengths) > 1:
                raise ValueError(f"{self._path}: the lists of column {self._name!r} have other lengths; pad them.")
            shape, column = (*shape, lengths[0] if lengths else 0), column.flatten()
        return column.to_numpy(zero_copy_only=False).reshape(len(index), *shape)


class _InOrder:
    """An array of h5py, which reads rows in increasing order, each once."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, index):
        rows, places = np.unique(index, return_inverse=True)
        return self._array[rows][places] if len(rows) else np.empty((0, *self.shape[1:]), self.dtype)


class _Orthogonal:
    """An array of zarr, whose own indexing by an array is of points."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, np.dtype(array.dtype)

    def __getitem__(self, index):
        return np.asarray(self._array.oindex[np.asarray(index)])


def _columns_of(path: Path) -> list[str]:
    """The names of a table's columns. Only its head or its footer is read."""
    import pandas
    import pyarrow.parquet

    with _reading(path):
        return (
            list(pandas.read_csv(path, nrows=0))
            if path.suffix.lower() == ".csv"
            else pyarrow.parquet.read_schema(path).names
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within it, an error of a library that reads a file names the file."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise DataUnavailable(
            f"{path}: it cannot be read ({first_line(error)}); store it again, or leave it out."
        ) from error


@functools.cache
def _unpacked(path: Path, name: str, changed: int) -> str:
    """The path of an unpacked member of an archive, which was last changed at a time; it is unpacked once."""
    with zipfile.ZipFile(path) as archive:
        return archive.extract(name, tempfile.mkdtemp(dir=_scratch().name))


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    """A folder that is deleted when the interpreter exits."""
    return tempfile.TemporaryDirectory(prefix="sgm-")


def _library(name: str, path: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise DataUnavailable(f"{path}: reading it takes {name}; pip install {name}.") from None
