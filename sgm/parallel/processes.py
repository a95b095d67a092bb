"""Several processes that compute as one, and what they tell each other."""

import contextlib
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from sgm.checks import check_array

Tree = TypeVar("Tree", bound=PyTree)

# Bytes that are sent together; JAX counts entries with 32 bits.
_AT_ONCE = 2**28
_UNTIL_SEEN = 10  # seconds in which a shared disk shows a file that another machine has written
# How XLA begins what it says of other processes.
_OF_XLA = "(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|DEADLINE_EXCEEDED): "


class ProcessLost(RuntimeError):
    """Another process of the run has ended, or can no longer be reached."""


def is_of_the_processes(error: BaseException) -> bool:
    """Whether an error is of what several processes compute together. XLA raises ValueError for some."""
    if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
        return False
    return isinstance(error, jax.errors.JaxRuntimeError) or (
        isinstance(error, ValueError) and re.match(_OF_XLA, str(error)) is not None
    )


@contextlib.contextmanager
def told_of_lost_processes(call: str) -> Iterator[None]:
    """Within it, an error of what the processes compute together names its likely cause."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not is_of_the_processes(error):
            raise
        reason = str(error).splitlines()[0]
        has = "has ended" if re.search("reset|closed|refused|heartbeat", reason, re.IGNORECASE) else "may have ended"
        raise ProcessLost(
            f"{call}: another process of the run {has}, or cannot be reached ({reason:.200}). Start all of them "
            "again: a run goes on from its newest checkpoint."
        ) from error


def is_first() -> bool:
    """Whether this process is the first, which writes logs and figures.

    Returns:
        True in the first of several processes, and where there is one alone.

    Example:
        >>> x = sgm.parallel.share(lambda keys: sgm.sample(sde, model, keys, method=sgm.DDIM(10)), jr.split(key, 8))
        >>> if sgm.parallel.is_first():
        ...     np.save("draws.npy", x)
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
    written = _written(columns)
    # JAX has no integers of 64 bits.
    sizes = multihost_utils.process_allgather(np.asarray(divmod(len(written), _AT_ONCE), np.int32))
    lengths = [int(whole) * _AT_ONCE + int(rest) for whole, rest in sizes]
    pieces = []
    for start in range(0, max(lengths), _AT_ONCE):
        piece = written[start : start + _AT_ONCE]
        longest = min(max(lengths) - start, _AT_ONCE)
        pieces.append(multihost_utils.process_allgather(np.pad(piece, (0, longest - len(piece)))))
    return [_read(row[:length]) for row, length in zip(np.concatenate(pieces, axis=1), lengths, strict=True)]


def check_one_disk(call: str, file: Path, step: int) -> None:
    """Raise unless all processes see the same file of a run, which the first has written, and the same newest step.

    On a disk of each machine's own they would wait for each other at the first checkpoint, for ever.
    """
    if jax.process_count() == 1:
        return
    wait_for_all(f"{call}: the run is described")
    until = time.monotonic() + _UNTIL_SEEN
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.1)
    written = zlib.crc32(file.read_bytes()) if file.exists() else 0
    with told_of_lost_processes(call):
        seen = [part["seen"].tolist() for part in gather({"seen": np.asarray([written, step])})]
    for number, of_process in enumerate(seen):
        if of_process != seen[0]:
            raise ValueError(
                f"{call}: process {number} does not find in run = {str(file.parent)!r} what process 0 does; pass a "
                "folder on a disk that all processes share."
            )


def _written(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Arrays as bytes: the length of a head, the head, which says what they are, and their entries."""
    parts, head = [], []
    for name, values in columns.items():
        dtype = values.dtype
        if dtype.hasobject:
            raise ValueError(f"gather: the column {name!r} holds Python objects (dtype {dtype}); give numbers.")
        # NumPy's own code of a dtype does not tell those that JAX has added, as bfloat16.
        head.append((name, dtype.str if np.dtype(dtype.str) == dtype else dtype.name, values.shape))
        parts.append(values.tobytes())
    text = json.dumps(head).encode()
    return np.frombuffer(b"".join((len(text).to_bytes(8, "little"), text, *parts)), np.uint8)


def _read(written: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `_written`."""
    place = 8 + int.from_bytes(written[:8].tobytes(), "little")
    columns = {}
    for name, code, shape in json.loads(written[8:place].tobytes()):
        dtype = jax.numpy.dtype(code)
        stop = place + math.prod(shape) * dtype.itemsize
        columns[name] = np.frombuffer(written[place:stop].tobytes(), dtype).reshape(shape).copy()
        place = stop
    return columns


def share(function: Callable[[Any], Any], each: PyTree) -> Any:
    """Let every process compute a part of `function(each)`, and give the whole to all of them.

    Arguments:
        function: Function of a tree of arrays, whose result is a tree of arrays with as many rows as it is given.
        each: Tree of arrays with a leading axis of one length, the same in all processes.

    Returns:
        The rows of the function's results, in their order, as NumPy arrays. With fewer rows than processes, each
        computes all.

    Raises:
        TypeError: for what is no array.
        ValueError: for arrays of `each`, or of the function's result, that do not have as many rows as the others.
        ProcessLost: where another process has ended.

    Example:
        >>> x = share(lambda keys: sgm.sample(sde, model, keys, method=sgm.DDIM(10)), jax.random.split(key, 8))
        >>> x.shape
        (8, 2)
    """
    count, n = jax.process_count(), _rows(each)
    if count == 1 or n < count:
        return _results(function, each, n)
    start, stop = np.linspace(0, n, count + 1).astype(int)[jax.process_index() :][:2].tolist()
    own = _results(function, jax.tree.map(lambda leaf: leaf[start:stop], each), stop - start)
    leaves, structure = jax.tree.flatten(own)
    with told_of_lost_processes("share"):
        parts = gather({str(place): leaf for place, leaf in enumerate(leaves)})
    whole = [np.concatenate([part[str(place)] for part in parts]) for place in range(len(leaves))]
    return jax.tree.unflatten(structure, whole)


def _rows(each: PyTree) -> int:
    """The number of rows of all arrays of a tree."""
    found: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(each):
        name = "each" + jax.tree_util.keystr(path)
        check_array("share", name, leaf)
        if not leaf.shape:
            raise ValueError(f"share: {name} has shape (); pass arrays of rows, as jax.random.split(key, n).")
        found[name] = leaf.shape[0]
    if not found:
        raise ValueError("share: each has no arrays; pass arrays of rows, as jax.random.split(key, n).")
    first, rows = next(iter(found.items()))
    for name, other in found.items():
        if other != rows:
            raise ValueError(f"share: {first} has {rows} rows, but {name} {other}; pass as many rows of each.")
    return rows


def _results(function: Callable[[Any], Any], each: PyTree, n: int) -> Any:
    """What the function gives for `n` rows, as NumPy arrays of as many."""
    results = jax.tree.map(np.asarray, function(each))
    for path, leaf in jax.tree_util.tree_leaves_with_path(results):
        if leaf.shape[:1] != (n,):
            name = "the result" + jax.tree_util.keystr(path)
            raise ValueError(
                f"share: {name} of the function has shape {leaf.shape} for {n} rows; give arrays with a row for each."
            )
    return results


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
