"""Meshes of devices, and arrays that are whole on each or cut along the batch."""

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from sgm.checks import check_count, check_instance

Tree = TypeVar("Tree", bound=PyTree)


def mesh(model: int = 1) -> Mesh:
    """All devices of all processes, along the axes "data" and "model".

    Arguments:
        model: Number of devices along "model". Where there is more than one, `sgm.train` cuts the state of the training
            over them (see `Sharded`), by default in place of a whole copy on each.

    Returns:
        The mesh, of shape (devices / model, model). Its devices are in the order of their processes.

    Raises:
        TypeError: for a number that is not whole.
        ValueError: for a number below 1, and one that does not divide the number of devices.

    Example:
        >>> mesh = sgm.parallel.mesh()  # or mesh(model=8), which cuts the state over groups of eight
        >>> sde, model, history = sgm.train(sde, model, data, key, steps=10, mesh=mesh)
    """
    devices = jax.devices()
    if len(devices) % check_count("mesh", "model", model):
        raise ValueError(
            f"mesh: model = {model} does not divide the number of devices, {len(devices)}; pass one that does."
        )
    return _mesh_of(devices, model)


def local_mesh() -> Mesh:
    """All devices of this process, along the axis "data"."""
    return _mesh_of(jax.local_devices(), 1)


def replicate(tree: Tree, mesh: Mesh | None) -> Tree:
    """The arrays of a tree, whole on every device; where they are if there is no mesh."""
    return tree if mesh is None else _place(tree, NamedSharding(mesh, PartitionSpec()))


def shard(tree: Tree, mesh: Mesh) -> Tree:
    """The arrays of a tree, each cut along its leading axis into one equal part a device.

    Each process passes its own rows of the whole (see `own_rows`).
    """
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    if sharding.is_fully_addressable:
        return _place(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def evenly(tree: Tree, mesh: Mesh | None) -> Tree:
    """Traced arrays of rows, the last of which is repeated until all devices have as many, cut along them."""
    n = jax.tree.leaves(tree)[0].shape[0]
    if mesh is None or n % mesh.size == 0:
        return tree
    rows = np.minimum(np.arange(-(-n // mesh.size) * mesh.size), n - 1)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.lax.with_sharding_constraint(jax.tree.map(lambda leaf: leaf[rows], tree), sharding)


def own_rows(mesh: Mesh, n: int) -> tuple[int, int]:
    """The first of `n` rows that are on devices of this process, and the row after the last."""
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    rows = [index[0].indices(n) for index in sharding.addressable_devices_indices_map((n,)).values() if index]
    return min(start for start, _, _ in rows), max(stop for _, stop, _ in rows)


def check_mesh(call: str, mesh: Any) -> Mesh:
    """The mesh of a computation by all processes, for which the compiler places what is computed.

    Raises TypeError for what is no mesh, ValueError for other axes than "data" and "model" and for devices that are not
    in the order of their processes or leave one out.
    """
    check_instance(call, "mesh", mesh, Mesh, "sgm.parallel.mesh()")
    if sorted(mesh.axis_names) != ["data", "model"]:
        raise ValueError(
            f'{call}: mesh has the axes {mesh.axis_names}; name them "data" and "model", as sgm.parallel.mesh() does.'
        )
    _check_processes(call, [device.process_index for device in mesh.devices.flat], jax.process_count())
    return _automatic(mesh)


def _check_processes(call: str, owners: Sequence[int], count: int) -> None:
    """Raise unless every process has devices, next to one another; `owners` are the processes of the devices."""
    missing = sorted({*range(count)} - {*owners})
    if missing:
        raise ValueError(
            f"{call}: mesh has no device of process {missing[0]}; pass sgm.parallel.mesh(), which has all devices, or "
            "start fewer processes."
        )
    for process in range(count):
        places = [place for place, owner in enumerate(owners) if owner == process]
        if places[-1] - places[0] >= len(places):
            raise ValueError(
                f"{call}: mesh has the devices of process {process} at the positions {places}, with others in between; "
                "pass sgm.parallel.mesh(), which has them in the order of their processes."
            )


def mesh_for(call: str, arguments: PyTree, mesh: Mesh | None) -> Mesh | None:
    """The mesh of a call outside any trace: the one that is asked for, else all devices of this process.

    Inside a trace it is None: Diffrax does not differentiate a solve within `jax.shard_map`. Raises ValueError if one
    is asked for there, and for one with devices of other processes.
    """
    check_instance(call, "mesh", mesh, Mesh | None, "sgm.parallel.mesh()")
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
        if mesh is not None:
            raise ValueError(
                f"{call}: mesh is given inside jax.jit or jax.grad; leave it out, and place arrays on devices yourself."
            )
        return None
    if mesh is None:
        return local_mesh() if jax.local_device_count() > 1 else None
    if mesh.is_multi_process:
        raise ValueError(
            f"{call}: mesh has devices of other processes; leave it out, and give each process its own examples."
        )
    return _automatic(mesh)


def _automatic(mesh: Mesh) -> Mesh:
    """The mesh with axes along which the compiler places arrays; `jax.make_mesh` leaves that to the program."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))


def _mesh_of(devices, model):
    return Mesh(np.asarray(devices).reshape(-1, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def _place(tree, sharding):
    arrays, rest = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    return eqx.combine(jax.device_put(arrays, sharding), rest)
