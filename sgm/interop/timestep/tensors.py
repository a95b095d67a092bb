"""The arrays of a module by the names that torch gives them, and back.

A module of this package has the attributes of its torch counterpart, so that the path to an array is its name:
`down_blocks[0].resnets[1].conv1.kernel` is `down_blocks.0.resnets.1.conv1.weight`. Blocks of one shape are one
`Stacked` block, whose arrays have a leading axis; each of them is as many tensors as there are blocks.
"""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgm.nn.frozen import Frozen

Module = TypeVar("Module", bound=eqx.Module)

_NAMES = {"kernel": "weight", "scale": "weight", "table": "weight", "shift": "bias"}
_PRECISIONS = ("float32", "float16", "bfloat16")
# Of a kernel by its number of axes: those of torch's tensor in our order.
_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}


class _Place(NamedTuple):
    """Where an array of ours is found: the names of its tensors, and the order of their axes."""

    names: tuple[str, ...]
    is_stacked: bool
    axes: tuple[int, ...] | None


def from_tensors(
    skeleton: Module, tensors: Mapping[str, np.ndarray], where: str, *, dtype: Any = None, progress: bool = False
) -> Module:
    """Fill a module with tensors, each copied once.

    Arguments:
        skeleton: Module of arrays, or of their shapes (`equinox.filter_eval_shape`).
        tensors: Arrays by their torch names, which may be views of a file.
        where: Name of the file or folder they were read from, for errors.
        dtype: Precision of the real numbers; None for that of the tensors.
        progress: Whether a bar is shown.

    Returns:
        The module. Arrays that are never trained have single precision or better.

    Raises:
        ValueError: for tensors that are missing, that the module does not have, of another shape, or of whole numbers,
            all named, and for stacked blocks of different precisions.

    Example:
        >>> network = from_tensors(eqx.filter_eval_shape(UNet2DModel, key=jr.key(0)), tensors, "unet/")
    """
    from tqdm.auto import tqdm  # here, because it looks for a notebook when it is imported

    leaves, structure = jax.tree_util.tree_flatten_with_path(skeleton, is_leaf=_is_array)
    filled = [leaf for _, leaf in leaves]
    places = {number: _place(path, leaf) for number, (path, leaf) in enumerate(leaves) if _is_array(leaf)}
    wanted = {name for place in places.values() for name in place.names}
    if faults := _differences(wanted, set(tensors)):
        raise ValueError(f"{where}: {faults}; pass a folder whose config.json fits its tensors.")
    arrays = {number: _empty(place, filled[number], tensors, where, dtype) for number, place in places.items()}
    copies = [
        (part, tensors[name], place.axes)
        for number, place in places.items()
        for name, part in zip(place.names, arrays[number] if place.is_stacked else [arrays[number]], strict=True)
    ]
    total = sum(array.nbytes for array in arrays.values())
    with (
        tqdm(desc=where, total=total, unit="B", unit_scale=True, disable=not progress) as bar,
        ThreadPoolExecutor() as threads,  # NumPy copies without Python's lock
    ):
        for nbytes in threads.map(_copy, *zip(*copies, strict=True)):
            bar.update(nbytes)
    for number, array in arrays.items():
        # Unlike `jax.numpy.asarray`, it does not copy aligned memory.
        filled[number] = Frozen(array) if isinstance(filled[number], Frozen) else jax.device_put(array)
    return jax.tree_util.tree_unflatten(structure, filled)


def check_dtype(call: str, dtype: Any) -> None:
    """Raise ValueError unless weights can be kept in this precision; None is that in which they are."""
    try:
        known = dtype is None or jnp.dtype(dtype).name in _PRECISIONS
    except TypeError:  # of what is no precision of NumPy, as those of torch are
        known = False
    if not known:
        raise ValueError(f"{call}: dtype = {dtype!r}; pass {', '.join(map(repr, _PRECISIONS))} or None.")


def to_tensors(module: eqx.Module) -> dict[str, np.ndarray]:
    """The arrays of a module by their torch names, in torch's order of axes.

    Arguments:
        module: Module of this package.

    Returns:
        Arrays, in the order of the module.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(module, is_leaf=_is_array)[0]:
        if not _is_array(leaf):
            continue
        place, array = _place(path, leaf), np.asarray(leaf.value if isinstance(leaf, Frozen) else leaf)
        for name, part in zip(place.names, array if place.is_stacked else [array], strict=True):
            tensors[name] = part if place.axes is None else np.transpose(part, np.argsort(place.axes))
    return {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}


def _is_array(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct | Frozen) or eqx.is_array(leaf)


def _shape(leaf):
    return leaf.bits.shape if isinstance(leaf, Frozen) else leaf.shape


def _place(path, leaf) -> _Place:
    words = list(_words(path))
    *_, last = words
    is_stacked = "*" in words
    words[-1] = _NAMES.get(last, last)
    name = ".".join(words)
    shape = _shape(leaf)
    names = tuple(name.replace("*", str(number)) for number in range(shape[0])) if is_stacked else (name,)
    axes = _AXES[len(shape) - is_stacked] if last == "kernel" else None
    return _Place(names, is_stacked, axes)


def _words(path) -> Iterator[str]:
    for key in path:
        if isinstance(key, jax.tree_util.SequenceKey):
            yield str(key.idx)
        elif isinstance(key, jax.tree_util.DictKey):
            yield str(key.key)
        elif key.name == "each":  # of `Stacked`
            yield "*"
        else:
            yield key.name


def _differences(wanted: set[str], found: set[str]) -> str:
    parts = {"missing": wanted - found, "not of this model": found - wanted}
    return " and ".join(f"tensors {what}: {_listed(names)}" for what, names in parts.items() if names)


def _listed(names: set[str], most: int = 8) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _empty(place, leaf, tensors, where, asked) -> np.ndarray:
    """Memory for the array of a leaf, after a look at its tensors."""
    shape = _shape(leaf)
    one = shape[1:] if place.is_stacked else shape
    theirs = one if place.axes is None else tuple(np.take(one, np.argsort(place.axes)).tolist())
    dtype = tensors[place.names[0]].dtype
    for name in place.names:
        tensor = tensors[name]
        if tensor.shape != theirs:
            raise ValueError(
                f"{where}: {name} has shape {tensor.shape}, but by config.json it has {theirs}; pass a folder "
                "whose config.json fits its tensors."
            )
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise ValueError(f"{where}: {name} has dtype {tensor.dtype}; save it in one of {', '.join(_PRECISIONS)}.")
        if asked is None and tensor.dtype != dtype:
            raise ValueError(
                f"{where}: {name} has dtype {tensor.dtype}, but {place.names[0]} has {dtype}; "
                "save them in one precision."
            )
    if asked is not None:
        dtype = jnp.dtype(asked)
    if isinstance(leaf, Frozen) and dtype.itemsize < 4:
        dtype = jnp.dtype(np.float32)
    # At a multiple of 64 bytes, so that JAX on the CPU does not copy it.
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy(part: np.ndarray, tensor: np.ndarray, axes: tuple[int, ...] | None) -> int:
    """Write a tensor into our part; the number of its bytes.

    Where the order of axes changes, torch's first axis becomes our last. Rows are copied 64 at a time, through a buffer
    that fits the processor's cache. Its rows are padded by one cache line: at distances of a power of two, they would
    push each other out of the cache.
    """
    if axes is None:
        part[...] = tensor
        return tensor.nbytes
    count, size = 64, math.prod(tensor.shape[1:])
    rows = np.empty((count, size + 64 // tensor.itemsize), tensor.dtype)[:, :size].reshape(count, *tensor.shape[1:])
    for start in range(0, len(tensor), count):
        some = tensor[start : start + count]
        rows[: len(some)] = some
        part[..., start : start + count] = np.transpose(rows[: len(some)], axes)
    return tensor.nbytes
