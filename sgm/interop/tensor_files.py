"""Files of tensors in the safetensors format: mapped into memory, so that a tensor is read when it is asked for."""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def map_tensors(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Map the tensors of safetensors files into memory.

    Arguments:
        paths: Files, no two of which have a tensor of one name.

    Returns:
        The tensors by their names. They are read-only, and are the memory of the files: copy what is kept.

    Raises:
        TensorFileError: for a file that is missing, damaged or of another format, and a tensor of a type that NumPy
            does not have, naming it.

    Example:
        >>> weight = np.array(map_tensors([Path("model.safetensors")])["conv_in.weight"])
    """
    tensors: dict[str, np.ndarray] = {}
    for path in paths:
        memory, entries = _mapped(path)
        for name, entry in entries.items():
            if name in tensors:
                raise TensorFileError(f"{path}: the tensor {name} is in another file too; leave one of them out.")
            if entry["dtype"] not in _DTYPES:
                raise TensorFileError(
                    f"{path}: the tensor {name} is of the type {entry['dtype']}; convert it to F32, F16 or BF16."
                )
            start, end = entry["data_offsets"]
            tensors[name] = memory[start:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


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
