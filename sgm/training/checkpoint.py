"""States on disk, written by Orbax beside the training: a crash while writing leaves the earlier ones as they were."""

import errno
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

from sgm.parallel.processes import ProcessLost, is_of_the_processes, told_of_lost_processes
from sgm.training.writers import Writers

State = TypeVar("State", bound=PyTree)

_FULL = re.compile("No space left|File too large|[Qq]uota exceeded")


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, of another model, or cannot be written."""


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return run / "checkpoints" / str(step)


def saved_steps(run: str | Path) -> list[int]:
    """The steps of the checkpoints of a run, in increasing order."""
    folder = Path(run) / "checkpoints"
    if not folder.is_dir():
        return []
    import orbax.checkpoint as ocp  # here, because it takes a second to import

    return sorted(ocp.utils.checkpoint_steps(folder))


def latest_step(run: str | Path) -> int | None:
    """Find the newest checkpoint of a run.

    Arguments:
        run: Folder of the run.

    Returns:
        Its step; None where there is none.

    Example:
        >>> sde, model, history = sgm.train(sde, model, data, key, steps=10, run="runs/maps")
        >>> latest_step("runs/maps")
        10
    """
    return max(saved_steps(run), default=None)


class Checkpoints:
    """The checkpoints of a run in training, written in the background.

    As a context it waits at its end until the last one is on disk.

    Arguments:
        run: Folder of the run.
        keep: Number of newest checkpoints that are kept.
        keep_best: Number of checkpoints that are kept besides, those of least `error`.
        error: Function of a step, such as its held-out loss; nan where there is none.

    Raises:
        CheckpointError: from `save`, `wait` and at the end, in all processes, where one of them cannot write its part
            of a checkpoint. Earlier ones stay.
    """

    def __init__(self, run: Path, keep: int = 2, keep_best: int = 0, error: Callable[[int], float] = lambda step: 0.0):
        import orbax.checkpoint as ocp

        self.run, self.keep, self.keep_best, self.error = run, keep, keep_best, error
        self._last: int | None = None
        together = ocp.AsyncOptions(barrier_sync_fn=Writers()) if jax.process_count() > 1 else None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self, cleanup_tmp_directories=True, async_options=together
        )
        folder = (run / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(folder, options=options, item_handlers=ocp.StandardCheckpointHandler())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and issubclass(kind, ProcessLost):
            return  # All processes would have to end the writing together.
        try:
            self.wait()
        finally:
            self._manager.close()

    def save(self, step: int, state: eqx.Module) -> None:
        """Begin to write the arrays of `state`, as they are now, once the checkpoint before is written."""
        import orbax.checkpoint as ocp

        self.wait()
        self._last = step
        arguments = ocp.args.StandardSave(_named_arrays(state))
        self._guarded(lambda: self._manager.save(step, args=arguments, force=True))

    def wait(self) -> None:
        """Wait until what is being written is on disk."""
        self._guarded(self._manager.wait_until_finished)

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Which checkpoints are kept, as Orbax asks of a policy."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        known = [step for step in steps if self.error(step) == self.error(step)]
        best = sorted(known, key=self.error)[: self.keep_best]
        return [step in best or step in steps[-self.keep :] for step in steps]

    def _guarded(self, write: Callable[[], Any]) -> None:
        path = checkpoint_path(self.run, self._last or 0)
        with told_of_lost_processes(f"checkpoint {path}"):
            try:
                write()
            except Exception as error:  # Orbax raises many kinds for what a disk refuses.
                causes = [*_causes(error)]
                lost = [e for e in causes if isinstance(e, jax.errors.JaxRuntimeError) or is_of_the_processes(e)]
                full = next(filter(None, map(_full_disk, causes)), "")
                if lost and not full:
                    raise lost[0] from error
                earlier = ", ".join(str(step) for step in saved_steps(self.run) if step != self._last)
                kept = f"those of steps {earlier} are as they were" if earlier else "there is none yet"
                raise CheckpointError(
                    f"checkpoint {path}: it cannot be written ({full or _first_line(error)}); {kept}. "
                    f"{'Make room on the disk' if full else 'Mend that'}, and begin again with the same arguments: the "
                    "run goes on from the newest."
                ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those from which it came."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _full_disk(error: BaseException) -> str:
    """What the disk says, where an error is that it is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return str(error.strerror)
    found = _FULL.search(str(error))
    return found.group() if found else ""


def _first_line(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]:.200}" if text else type(error).__name__


def restore_checkpoint(run: Path, step: int, like: State, within: str = "") -> State:
    """The state saved at `step`, with the structure of `like`, whose arrays may be `jax.ShapeDtypeStruct`s.

    `within` is the place of `like` in the state, such as ".average"; by default it is all of it.

    Raises `CheckpointError` where the checkpoint is damaged, or its arrays are not those of `like`.
    """
    import orbax.checkpoint as ocp

    path = checkpoint_path(run, step)
    wanted = {within + name: array for name, array in _named_arrays(like).items()}
    # Where `like` has no arrays on devices: those it was saved from may not be there.
    here = SingleDeviceSharding(jax.local_devices()[0])
    places = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=getattr(array, "sharding", None) or here)
        for name, array in wanted.items()
    }
    try:
        options = ocp.CheckpointManagerOptions(create=False, enable_async_checkpointing=False)
        folder, handler = path.parent.absolute(), ocp.PyTreeCheckpointHandler()
        with ocp.CheckpointManager(folder, options=options, item_handlers=handler) as manager:
            saved = {name: (array.shape, array.dtype) for name, array in manager.item_metadata(step).items()}
            inside = (f"{within}.", f"{within}[") if within else ""
            found = {name: kind for name, kind in saved.items() if name.startswith(inside)}
            _check_same(path, found, {name: (array.shape, array.dtype) for name, array in wanted.items()})
            how = ocp.checkpoint_utils.construct_restore_args(places)
            arguments = ocp.args.PyTreeRestore(places, restore_args=how, partial_restore=True)
            arrays = manager.restore(step, args=arguments)
    except CheckpointError:
        raise
    except Exception as error:  # Orbax raises many kinds for files that are missing or cut short.
        raise CheckpointError(
            f"checkpoint {path}: it cannot be read ({_first_line(error)}); if it is damaged or cut short, "
            "delete this folder, and the run goes on from the checkpoint before it."
        ) from error
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(
        structure, [arrays.get(within + jax.tree_util.keystr(name), leaf) for name, leaf in leaves]
    )


def _named_arrays(state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(name): leaf for name, leaf in leaves if hasattr(leaf, "dtype")}


def _check_same(path, found, wanted):
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            saved, expected = (
                "no such array" if entry is None else f"shape {tuple(entry[0])} {entry[1]}"
                for entry in (found.get(name), wanted.get(name))
            )
            raise CheckpointError(
                f"checkpoint {path}: it is of another model; at {name} it has {saved}, but the model has {expected}. "
                "Build the model of its configuration, or begin a run in another folder."
            )
