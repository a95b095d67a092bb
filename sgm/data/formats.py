"""Arrays in files, read row by row: .npy, .npz, .parquet, .csv, HDF5 and Zarr.

No file is loaded as a whole. NumPy's are mapped into memory, `datasets` maps tables, h5py and zarr read the chunks that
are asked for. The libraries are imported when a file of their format is opened.
"""

import abc
import functools
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgm.data.base import DataUnavailable
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
        return np.load(self.path, mmap_mode="r")


class NpzFile(AbstractFile):
    """A .npz file. Arrays that are compressed are unpacked to a temporary folder, and mapped from there."""

    @functools.cached_property
    def names(self):
        with zipfile.ZipFile(self.path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())

    def array(self, name):
        with zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type == zipfile.ZIP_STORED:
                return self._mapped(member)
            folder = tempfile.mkdtemp(dir=_scratch().name)
            return np.load(archive.extract(member, folder), mmap_mode="r")

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
                raise ValueError(f"{self.path}: {member.filename} holds Python objects; store numbers.")
            order = "F" if in_columns else "C"
            return np.memmap(self.path, dtype, "r", file.tell(), shape, order)


class TableFile(AbstractFile):
    """A .parquet or .csv file. An entry may be a list, of one shape in all rows."""

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

        read = datasets.Dataset.from_csv if self.path.suffix == ".csv" else datasets.Dataset.from_parquet
        datasets.disable_progress_bars()
        try:
            rows: Any = read(str(self.path))
        except Exception as error:  # Of many kinds, by the reader.
            raise DataUnavailable(f"{self.path}: it cannot be read as a table ({_first_line(error)}).") from error
        finally:
            datasets.enable_progress_bars()
        return rows.with_format("arrow")


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
        return _library("h5py", "hdf5", self.path).File(self.path, "r")


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
        return _library("zarr", "zarr", self.path).open(str(self.path), mode="r")


class Folder(AbstractFile):
    """A folder of .npy files, whose names are those of its arrays."""

    @functools.cached_property
    def names(self):
        return tuple(sorted(path.stem for path in self.path.glob("*.npy")))

    def array(self, name):
        return np.load(self.path / f"{name}.npy", mmap_mode="r")


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
    """Open a file of arrays, by the ending of its name.

    Arguments:
        call: Name of the data set in messages.
        path: Path of a file, of a folder of .npy files, or of a Zarr store.

    Raises:
        DataUnavailable: where there is no such file, or none of a known format.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataUnavailable(f"{call}: there is no file {path}; pass the path of one as path.")
    is_zarr = path.is_dir() and any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))
    kind = ZarrFile if is_zarr or path.name.endswith(".zarr.zip") else Folder if path.is_dir() else None
    kind = kind or _FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(_FORMATS)
        raise DataUnavailable(f"{call}: {path} is of no known format; pass one of {known}, or a folder of .npy files.")
    return kind(path)


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
        import pyarrow

        column = self._rows[np.asarray(index)].column(self._name).combine_chunks()
        shape: tuple[int, ...] = ()
        while pyarrow.types.is_nested(column.type):
            if isinstance(column, pyarrow.ExtensionArray):
                column = column.storage
                continue
            length = len(column[0]) if len(column) else 0
            outer, column = len(column), column.flatten()
            if len(column) != outer * length:
                raise ValueError(f"{self._path}: the lists of column {self._name!r} have other lengths; pad them.")
            shape = (*shape, length)
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


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    """A folder that is deleted when the interpreter exits."""
    return tempfile.TemporaryDirectory(prefix="sgm-")


def _library(name: str, extra: str, path: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise DataUnavailable(f"{path}: reading it takes {name}; pip install 'sgm[{extra}]'.") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
