"""Examples that are solved one by one: in groups on a device, and spread over devices."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree


def group_size(shape: tuple[int, ...]) -> int:
    """Number of examples of `shape` that are drawn together by default: as many as have 2^20 entries."""
    return max(1, 2**20 // math.prod(shape))


def in_groups(function: Callable[[Any], Any], each: PyTree, size: int) -> PyTree:
    """`function` of the arrays in `each`, at most `size` rows of them at a time, one group after the other."""
    n = jax.tree.leaves(each)[0].shape[0]
    groups = math.ceil(n / size)
    if groups == 1:
        return function(each)
    # Groups of one length; what is left over in the last is its last row again, and thrown away.
    rows = np.minimum(np.arange(groups * math.ceil(n / groups)), n - 1).reshape(groups, -1)
    result = jax.lax.map(function, jax.tree.map(lambda leaf: leaf[rows], each))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], result)


def spread(function: Callable[[Any, Any], Any], shared: PyTree, each: PyTree, mesh: Mesh | None) -> PyTree:
    """`function(shared, each)`, whose arrays in `each` and in the result have a leading axis of one length.

    With a mesh, `each` is cut along that axis into one equal part a device, on which each device runs loops of its own.
    Where the devices do not share it evenly, its last row is repeated, and what comes of that thrown away.
    """
    if mesh is None:
        return function(shared, each)
    (shared, each), rest = eqx.partition((shared, each), eqx.is_array)
    n = jax.tree.leaves(each)[0].shape[0]
    rows = np.minimum(np.arange(math.ceil(n / mesh.size) * mesh.size), n - 1)
    mapped = jax.shard_map(
        lambda *arrays: function(*eqx.combine(arrays, rest)),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(mesh.axis_names)),
        out_specs=PartitionSpec(mesh.axis_names),
        check_vma=False,  # which Diffrax's adaptive solves do not pass
    )
    result = mapped(shared, jax.tree.map(lambda leaf: leaf[rows], each))
    return jax.tree.map(lambda leaf: leaf[:n], result)
