"""Where the arrays of a state are: whole on every device, or cut into parts."""

import math
from abc import abstractmethod
from collections import defaultdict
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from sgm.checks import check_count, check_instance


class AbstractPlacement(eqx.Module):
    """A rule that says over which axes of a mesh an array is cut."""

    @abstractmethod
    def spec(self, path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
        """The axis of the mesh along which each axis of an array is cut.

        Arguments:
            path: Place of the array in the state, as ".model.network.blocks[0].kernel".
            shape: Its shape.
            mesh: The devices.
        """

    def shardings(self, state: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
        """The sharding of each array of a state, or of its shapes; None in the place of all else.

        Raises TypeError for a spec that is no `PartitionSpec`, and ValueError for one that does not fit its array.
        """

        def of_leaf(path, leaf):
            if not hasattr(leaf, "dtype"):
                return None
            spec = self.spec(jax.tree_util.keystr(path), leaf.shape, mesh)
            self._check(spec, jax.tree_util.keystr(path), leaf.shape, mesh)
            return NamedSharding(mesh, spec)

        return jax.tree_util.tree_map_with_path(of_leaf, state)

    def _check(self, spec: Any, path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> None:
        """Raise unless the spec cuts axes of the array evenly, over axes of the mesh."""
        call, given = f"{type(self).__name__}.spec", f"{spec} for {path} of shape {shape}"
        check_instance(call, f"what is given for {path}", spec, PartitionSpec, "jax.sharding.PartitionSpec()")
        if len(spec) > len(shape):
            raise ValueError(f"{call}: it gives {given}; give at most one entry for each axis of the array.")
        cuts = [names if isinstance(names, tuple) else () if names is None else (names,) for names in spec]
        used = [name for names in cuts for name in names]
        if len(set(used)) < len(used) or not {*used} <= {*mesh.axis_names}:
            known = " and ".join(repr(name) for name in mesh.axis_names)
            raise ValueError(f"{call}: it gives {given}; name axes of the mesh, which are {known}, each once.")
        for axis, names in enumerate(cuts):
            parts = math.prod(mesh.shape[name] for name in names)
            if shape[axis] % parts:
                raise ValueError(
                    f"{call}: it gives {given}, but {parts} devices do not share the {shape[axis]} entries along axis "
                    f"{axis} evenly; leave that axis whole, with None, or cut another."
                )


class Replicated(AbstractPlacement):
    """Every array is whole on every device.

    Example:
        >>> mesh, placement = sgm.parallel.mesh(), Replicated()
        >>> sde, model, history = sgm.train(sde, model, data, key, steps=10, mesh=mesh, placement=placement)
    """

    def spec(self, path, shape, mesh):
        return PartitionSpec()


class Sharded(AbstractPlacement):
    """Large arrays are cut over "model", and over "data" where they divide (fully sharded data parallelism).

    An array is cut along its longest axis that the devices share evenly; where none is, or the mesh has one device
    along "model", it is whole on every device.

    Arguments:
        smallest: Number of entries from which an array is large.

    Raises:
        TypeError: for a number of entries that is no integer.
        ValueError: for a number of entries below 1.

    Example:
        >>> devices = jax.sharding.AbstractMesh((4, 8), ("data", "model"))
        >>> tuple(Sharded().spec(".kernel", (64, 1024), devices))  # along the longer axis, over all 32 devices
        (None, ('model', 'data'))

    Reference: Rajbhandari et al. 2020 (ZeRO, arXiv:1910.02054).
    """

    smallest: int = eqx.field(static=True, default=2**14)

    def __check_init__(self):
        check_count("Sharded", "smallest", self.smallest)

    def spec(self, path, shape, mesh):
        if mesh.shape["model"] == 1 or math.prod(shape) < self.smallest:
            return PartitionSpec()
        longest = sorted(range(len(shape)), key=lambda axis: -shape[axis])
        for names in (("model", "data"), ("model",)):
            parts = math.prod(mesh.shape[name] for name in names)
            for axis in longest:
                if shape[axis] % parts == 0:
                    return PartitionSpec(*[None] * axis, names)
        return PartitionSpec()


def describe(state: PyTree) -> str:
    """Describe where the arrays of a tree are, one line for each way in which arrays are cut.

    Arguments:
        state: Tree of arrays on devices. Those of NumPy are of the host.

    Returns:
        Lines as "kernel (1152, 4608) over model, data along axis 1: 28 arrays, 2.4 GB, 304.0 MB a device".

    Raises:
        TypeError: for shapes in the place of arrays, which are nowhere.

    Example:
        >>> print(sgm.parallel.describe({"kernel": jnp.zeros((100, 50))}))
        in all: 1 array, 20 kB, 20 kB a device
        kernel (100, 50) whole: 1 array, 20 kB, 20 kB a device
    """
    groups: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(
                f"describe: {jax.tree_util.keystr(path) or 'state'} is a shape, not an array; pass arrays on "
                "devices, or print placement.shardings(state, mesh)."
            )
        if isinstance(leaf, jax.Array | np.ndarray):
            name = jax.tree_util.keystr(path[-1:]).strip(".[]'\"") if path else "array"
            groups[name, str(leaf.shape), _cut(leaf)].append(leaf)
    lines = [
        f"{name} {shape} {cut}: {_counted(leaves)}"
        for (name, shape, cut), leaves in sorted(groups.items(), key=lambda item: -sum(leaf.nbytes for leaf in item[1]))
    ]
    every = [leaf for leaves in groups.values() for leaf in leaves]
    return "\n".join([f"in all: {_counted(every)}", *lines])


def _cut(leaf) -> str:
    if isinstance(leaf, np.ndarray):
        return "of the host"
    spec = leaf.sharding.spec if isinstance(leaf.sharding, NamedSharding) else ()
    cuts = [
        f"over {', '.join((names,) if isinstance(names, str) else names)} along axis {axis}"
        for axis, names in enumerate(spec)
        if names is not None
    ]
    return " and ".join(cuts) or "whole"


def _counted(leaves) -> str:
    on_devices = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    each = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in on_devices)
    count = "1 array" if len(leaves) == 1 else f"{len(leaves)} arrays"
    return f"{count}, {_size(sum(leaf.nbytes for leaf in leaves))}, {_size(each)} a device"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
