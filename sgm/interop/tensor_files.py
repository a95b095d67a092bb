"""Files of tensors in the safetensors format: mapped into memory, so that a tensor is read when it is asked for."""

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax.numpy as jnp
import numpy as np

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class TensorFileError(ValueError):
    """A file of tensors that is missing, damaged or of another format."""


class TensorFiles(Mapping[str, np.ndarray]):
    """The tensors of one or more safetensors files by their names.

    They are read-only, and those that are not converted are the memory of the file itself: copy what is kept.

    Arguments:
        paths: Files, no two of which have a tensor of one name.
        dtype: Precision to which real numbers are converted; None for that of the files.
        progress: Whether a bar counts the bytes that are asked for, while it is used as a context.

    Raises:
        TensorFileError: for a file that is missing, damaged or of another format, and a tensor of a type that NumPy
            does not have, naming it.

    Example:
        >>> with TensorFiles([Path("model.safetensors")]) as tensors:
        ...     weight = np.array(tensors["conv_in.weight"])
    """

    def __init__(self, paths: Sequence[Path], dtype: Any = np.float32, *, progress: bool = False):
        self.dtype, self.progress = dtype, progress
        self._bar: Any = None
        self._places: dict[str, tuple[np.memmap, dict[str, Any]]] = {}
        for path in paths:
            bytes_, entries = _mapped(path)
            for name, entry in entries.items():
                if name in self._places:
                    raise TensorFileError(f"{path}: the tensor {name} is in another file too; leave one of them out.")
                if entry["dtype"] not in _DTYPES:
                    raise TensorFileError(
                        f"{path}: the tensor {name} is of the type {entry['dtype']}; convert it to F32, F16 or BF16."
                    )
                self._places[name] = bytes_, entry

    def __enter__(self) -> "TensorFiles":
        from tqdm.auto import tqdm  # here, because it looks for a notebook when it is imported

        total = sum(_size(entry) for _, entry in self._places.values())
        self._bar = tqdm(desc="load", total=total, unit="B", unit_scale=True, disable=not self.progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._bar = None

    def __getitem__(self, name: str) -> np.ndarray:
        bytes_, entry = self._places[name]
        start, end = entry["data_offsets"]
        tensor = bytes_[start:end].view(np.ndarray).view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if self._bar is not None:
            self._bar.update(end - start)
        if self.dtype is None or not jnp.issubdtype(tensor.dtype, jnp.floating):
            return tensor
        return tensor.astype(self.dtype, copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays by their names to a safetensors file.

    Arguments:
        path: File, written over where it is there.
        tensors: Arrays.
        metadata: Strings that are kept in the head of the file.
    """
    from safetensors.numpy import save_file  # here, so that it is loaded when used

    save_file({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, path, metadata)


def _size(entry):
    start, end = entry["data_offsets"]
    return end - start


def _mapped(path):
    """The memory of a file's data, and where in it each tensor lies."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # It checks the head, and that the tensors fill the file.
            pass
    except FileNotFoundError:
        raise TensorFileError(f"{path}: there is no such file; download it again, or restore it.") from None
    except (SafetensorError, OSError) as error:
        raise TensorFileError(
            f"{path}: it is no safetensors file, or it is cut short ({error}); download it again, or restore it."
        ) from None
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        empty = os.fstat(file.fileno()).st_size == 8 + length  # of no bytes there is no map
        bytes_ = np.zeros(0, np.uint8) if empty else np.memmap(file, np.uint8, "r", 8 + length)
    return bytes_, entries
