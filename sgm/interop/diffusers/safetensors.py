"""The tensors of a safetensors file, read in place.

A file is the length of a header (8 bytes, little-endian), the header (JSON: of each tensor its dtype, its shape and
where its bytes begin and end), and the bytes. Nothing in it can run code.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def mapped(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Map a safetensors file into memory.

    Arguments:
        path: The file.

    Returns:
        Its tensors by their names: views of the file, which is read where they are looked at, and cannot be written.

    Raises:
        ValueError: for a file that is no safetensors file, that ends early, or with a dtype that is not known.

    Example:
        >>> tensors = mapped("unet/diffusion_pytorch_model.safetensors")
    """
    size = Path(path).stat().st_size
    # A map of no bytes is an error of the system.
    whole = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    length = int.from_bytes(whole[:8].tobytes(), "little")
    if size < 8 or length > size - 8:
        raise ValueError(
            f"{path}: its {size} bytes are no safetensors file, or the beginning of one; download it again."
        )
    try:
        header = json.loads(whole[8 : 8 + length].tobytes())
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _tensor(path, name, whole[8 + length :], **entry) for name, entry in entries.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: its header is not that of a safetensors file; download it again.") from error


def _tensor(path, name, data, *, dtype, shape, data_offsets):
    if dtype not in _DTYPES:
        raise ValueError(f"{path}: {name} has the dtype {dtype}; convert it to one of {', '.join(_DTYPES)}.")
    kind, (begin, end) = np.dtype(_DTYPES[dtype]), data_offsets
    is_whole = 0 <= begin <= end <= len(data) and end - begin == math.prod(shape) * kind.itemsize
    if not is_whole or any(size < 0 for size in shape):
        raise ValueError(
            f"{path}: {name} is of shape {tuple(shape)} and dtype {dtype} at the bytes {begin} to {end}, but there are "
            f"{len(data)}; download it again."
        )
    return data[begin:end].view(np.ndarray).view(kind).reshape(shape)
