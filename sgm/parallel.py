"""Work spread over the devices of one machine: data parallelism along the leading axis of a batch."""

from typing import TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

Tree = TypeVar("Tree", bound=PyTree)


def local_mesh() -> Mesh:
    """All devices of this process, along the axis "batch"."""
    return jax.make_mesh((jax.local_device_count(),), ("batch",), (AxisType.Auto,), devices=jax.local_devices())


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays of a tree, whole on every device."""
    return _place(tree, NamedSharding(mesh, PartitionSpec()))


def shard(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays of a tree, each cut along its leading axis into one equal part a device."""
    return _place(tree, NamedSharding(mesh, PartitionSpec("batch")))


def _place(tree, sharding):
    arrays, rest = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return eqx.combine(jax.device_put(arrays, sharding), rest)
