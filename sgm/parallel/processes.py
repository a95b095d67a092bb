"""Several processes that compute as one, and what they tell each other."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

Tree = TypeVar("Tree", bound=PyTree)


class ProcessLost(RuntimeError):
    """Another process of the run has ended, or can no longer be reached."""


@contextlib.contextmanager
def told_of_lost_processes(call: str) -> Iterator[None]:
    """Within it, an error of what the processes compute together names its likely cause."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in reason:
            raise
        has = "has ended" if re.search("reset|closed|refused|heartbeat", reason, re.IGNORECASE) else "may have ended"
        raise ProcessLost(
            f"{call}: another process of the run {has}, or cannot be reached ({reason:.200}). Start all of them "
            "again: a run goes on from its newest checkpoint."
        ) from error


def is_first() -> bool:
    """Whether this process is the first, which writes logs and figures.

    Returns:
        True in the first of several processes, and where there is one alone.
    """
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Wait until all processes are at the place of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(columns: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The columns of all processes, in their order.

    Arguments:
        columns: Arrays of this process, by their names.
    """
    if jax.process_count() == 1:
        return [columns]
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **columns)
    written = np.frombuffer(file.getvalue(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(written), np.int32))
    padded = multihost_utils.process_allgather(np.pad(written, (0, int(lengths.max()) - len(written))))
    found = []
    for row, length in zip(padded, lengths, strict=True):
        with np.load(io.BytesIO(row[:length].tobytes()), allow_pickle=False) as file:
            found.append(dict(file))
    return found


def share(function: Callable[[Any], Any], each: PyTree) -> Any:
    """Let every process compute a part of `function(each)`, and give the whole to all of them.

    Arguments:
        function: Function of a tree of arrays, whose result has as many rows as it is given.
        each: Tree of arrays with a leading axis of one length, the same in all processes.

    Returns:
        The rows of the function's results, in their order. With fewer rows than processes, each computes all.

    Example:
        >>> x = share(lambda keys: sgm.sample(sde, model, keys), jax.random.split(key, 10_000))
    """
    count, n = jax.process_count(), len(jax.tree.leaves(each)[0])
    if count == 1 or n < count:
        return function(each)
    ends = np.linspace(0, n, count + 1).astype(int)
    own = slice(*ends[jax.process_index() :][:2])
    leaves, structure = jax.tree.flatten(function(jax.tree.map(lambda leaf: leaf[own], each)))
    parts = gather({str(place): np.asarray(leaf) for place, leaf in enumerate(leaves)})
    whole = [np.concatenate([part[str(place)] for part in parts]) for place in range(len(leaves))]
    return jax.tree.unflatten(structure, whole)


def local(tree: Tree) -> Tree:
    """A tree whose arrays are whole on a device of this process. All processes call it together."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(_local, tree)


def _local(leaf: Any):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if not leaf.is_fully_replicated:
        assert isinstance(leaf.sharding, NamedSharding)
        leaf = jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, PartitionSpec()))(leaf)
    return leaf.addressable_data(0)
