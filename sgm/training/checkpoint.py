"""States on disk, written atomically by Orbax: a crash while writing leaves the earlier checkpoints as they were."""

from pathlib import Path
from typing import TypeVar

import equinox as eqx
import jax
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

State = TypeVar("State", bound=PyTree)


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, or of another model."""


def checkpoint_path(run: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return run / "checkpoints" / str(step)


def latest_step(run: Path) -> int | None:
    """Find the newest checkpoint of a run.

    Arguments:
        run: Folder of the run.

    Returns:
        Its step; None where there is none.
    """
    if not (run / "checkpoints").is_dir():
        return None
    with _manager(run) as manager:
        return manager.latest_step()


def save_checkpoint(run: Path, step: int, state: eqx.Module) -> None:
    """Write the arrays of `state`, and keep the two newest checkpoints."""
    import orbax.checkpoint as ocp  # here, because it takes a second to import

    with _manager(run) as manager:
        manager.save(step, args=ocp.args.StandardSave(_named_arrays(state)), force=True)


def restore_checkpoint(run: Path, step: int, like: State, within: str = "") -> State:
    """The state saved at `step`, with the structure of `like`, whose arrays may be `jax.ShapeDtypeStruct`s.

    `within` is the place of `like` in the state, such as ".average"; by default it is all of it.

    Raises `CheckpointError` where the checkpoint is damaged, or its arrays are not those of `like`.
    """
    import orbax.checkpoint as ocp

    path = checkpoint_path(run, step)
    wanted = {within + name: array for name, array in _named_arrays(like).items()}
    # Placed here, since the devices it was saved from may not be there.
    place = SingleDeviceSharding(jax.local_devices()[0])
    try:
        with _manager(run) as manager:
            saved = {name: (array.shape, array.dtype) for name, array in manager.item_metadata(step).items()}
            inside = (f"{within}.", f"{within}[") if within else ""
            found = {name: kind for name, kind in saved.items() if name.startswith(inside)}
            _check_same(path, found, {name: (array.shape, array.dtype) for name, array in wanted.items()})
            places = {name: jax.ShapeDtypeStruct(*kind, sharding=place) for name, kind in saved.items()}
            arrays = manager.restore(step, args=ocp.args.StandardRestore(places))
    except CheckpointError:
        raise
    except Exception as error:  # Orbax raises many kinds for files that are missing or cut short.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"checkpoint {path}: it cannot be read ({reason:.200}); if it is damaged or cut short, "
            "delete this folder, and the run goes on from the checkpoint before it."
        ) from error
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(
        structure, [arrays.get(within + jax.tree_util.keystr(name), leaf) for name, leaf in leaves]
    )


def _manager(run):
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    folder = (run / "checkpoints").absolute()
    return ocp.CheckpointManager(folder, options=options, item_handlers=ocp.StandardCheckpointHandler())


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
