"""Arrays in files, read row by row: .npy, .npz, .parquet, .csv, HDF5 and Zarr.

No file is loaded as a whole. NumPy's are mapped into memory, `datasets` maps tables, h5py and zarr read the chunks that
are asked for. The libraries are imported when a file of their format is opened.
"""

import abc
import functools
import glob
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgm.data.base import DataUnavailable
from sgm.data.stored import Source

# Fewer than the files that a process may open by default on any system.
_OPEN_SHARDS = 100


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
                raise ValueError(f"{self.path}: {member.filename} holds Python objects; store numbers.")
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
        self._paths = [str(path), *map(str, more)]

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

        read: Any = datasets.Dataset.from_csv if self.path.suffix == ".csv" else datasets.Dataset.from_parquet
        datasets.disable_progress_bars()
        try:
            rows = read(self._paths)
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


class Shards(AbstractFile):
    """Several files of the same arrays, whose rows follow one another.

    Arguments:
        files: The files, in order.
    """

    def __init__(self, files: Sequence[AbstractFile]):
        super().__init__(files[0].path)
        self._files = list(files)

    @property
    def names(self):
        return self._files[0].names

    def array(self, name):
        return _InTurn(self._files, name)


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
    if all(isinstance(file, TableFile) for file in files) and len({file.path.suffix for file in files}) == 1:
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
        self._ends = np.cumsum([shape[0] for shape in shapes])
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
def _unpacked(path: Path, name: str, changed: int) -> str:
    """The path of an unpacked member of an archive, which was last changed at a time; it is unpacked once."""
    with zipfile.ZipFile(path) as archive:
        return archive.extract(name, tempfile.mkdtemp(dir=_scratch().name))


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
