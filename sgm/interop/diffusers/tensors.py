"""The arrays of a module by the names that torch gives them, and back.

A module of this package has the attributes of its torch counterpart, so that the path to an array is its name:
`down_blocks[0].resnets[1].conv1.kernel` is `down_blocks.0.resnets.1.conv1.weight`. Blocks of one shape are one
`Stacked` block, whose arrays have a leading axis; each of them is as many tensors as there are blocks.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np

from sgm.nn.frozen import Frozen

Module = TypeVar("Module", bound=eqx.Module)

_NAMES = {"kernel": "weight", "scale": "weight", "table": "weight", "shift": "bias"}
# Of a kernel by its number of axes: those of torch's tensor in our order.
_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}


class Stacked(eqx.Module):
    """Blocks of one shape, as one block whose arrays have a leading axis."""

    blocks: Any


class _Place(NamedTuple):
    """Where an array of ours is found: the names of its tensors, and the order of their axes."""

    names: tuple[str, ...]
    is_stacked: bool
    axes: tuple[int, ...] | None


def from_tensors(skeleton: Module, tensors: Mapping[str, np.ndarray], where: str) -> Module:
    """Fill a module with tensors, each copied once.

    Arguments:
        skeleton: Module of arrays, or of their shapes (`equinox.filter_eval_shape`).
        tensors: Arrays by their torch names. One is read when its turn comes.
        where: What they were read from, for errors.

    Returns:
        The module, with arrays of the tensors' precision.

    Raises:
        ValueError: for tensors that are missing, that the module does not have, or of another shape, all named.

    Example:
        >>> network = from_tensors(eqx.filter_eval_shape(UNet2DModel, key=jr.key(0)), tensors, "unet/")
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(skeleton, is_leaf=_is_array)
    places = [_place(path, leaf) if _is_array(leaf) else None for path, leaf in leaves]
    wanted = {name for place in places if place is not None for name in place.names}
    if faults := _differences(wanted, set(tensors)):
        raise ValueError(f"{where}: {faults}; pass the folder of a model whose config.json is its own.")
    filled = [
        leaf if place is None else _filled(place, leaf, tensors, where)
        for place, (_, leaf) in zip(places, leaves, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, filled)


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
        elif key.name == "blocks":  # of `Stacked`
            yield "*"
        else:
            yield key.name


def _differences(wanted: set[str], found: set[str]) -> str:
    parts = {"missing": wanted - found, "not of this model": found - wanted}
    return " and ".join(f"tensors {what}: {_listed(names)}" for what, names in parts.items() if names)


def _listed(names: set[str], most: int = 8) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _filled(place, leaf, tensors, where):
    shape = _shape(leaf)
    one = shape[1:] if place.is_stacked else shape
    whole = None
    for number, name in enumerate(place.names):
        tensor = tensors[name]
        theirs = one if place.axes is None else tuple(np.take(one, np.argsort(place.axes)).tolist())
        if tensor.shape != theirs:
            raise ValueError(
                f"{where}: {name} has shape {tensor.shape}, but by config.json it has {theirs}; pass the folder of a "
                "model whose config.json is its own."
            )
        whole = _aligned(shape, tensor.dtype) if whole is None else whole
        _copy(tensor, place.axes, whole[number] if place.is_stacked else whole)
    return Frozen(_real(whole)) if isinstance(leaf, Frozen) else jax.numpy.asarray(whole)


def _aligned(shape, dtype):
    """An array that JAX can take over without a copy, for which it has to begin at a multiple of 64 bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def _copy(tensor, axes, into):
    if axes is None:
        into[...] = tensor
        return
    # The last of our axes is the first of the tensor's: some of it at a time, so that both stay in the cache.
    ours = np.transpose(tensor, axes)
    for start in range(0, ours.shape[-1], 64):
        into[..., start : start + 64] = ours[..., start : start + 64]


def _real(numbers):
    """Numbers that are never trained, in single precision at least."""
    return numbers.astype(np.float32) if numbers.dtype.itemsize < 4 else numbers
