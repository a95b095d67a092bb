"""A trained model, from the folder of a run."""

from pathlib import Path

import equinox as eqx

from sgm.model.reverse import Model
from sgm.sde.process import Process
from sgm.training.checkpoint import CheckpointError, latest_step, restore_checkpoint, saved_steps
from sgm.training.fingerprint import check_same_run, describe, structure_of
from sgm.training.learned_schedule import has_learned_part, learned_part


def load_run(
    run: str | Path, sde: Process, model: Model, *, average: bool = True, step: int | None = None
) -> tuple[Process, Model]:
    """Load what `sgm.train(..., run=run)` has trained.

    Arguments:
        run: Folder of the run.
        sde: Process of the run.
        model: Model of the same structure as the run's. Its arrays do not matter.
        average: Whether the averaged weights are loaded, or the raw ones.
        step: Step of the checkpoint, such as `best_step(run)`; by default the newest.

    Returns:
        The process, with what of it is trained, and the model of the checkpoint.

    Raises:
        CheckpointError: where there is no checkpoint, or it is damaged or of another model.
        RunMismatch: where the run's model has another structure or another setting, naming it.

    Example:
        >>> network = MLP((2,), width=32, depth=2, key=jr.key(0))
        >>> sde, model = load_run("runs/maps", sgm.VP(), sgm.ScoreModel(network, data=data))
    """
    if latest_step(Path(run)) is not None:
        check_same_run("load_run", Path(run), {"model": describe(model, structure_of)})
    return restore(run, sde, model, average=average, step=step)


def restore(
    run: str | Path, sde: Process, model: Model, *, average: bool = True, step: int | None = None
) -> tuple[Process, Model]:
    """`load_run` for a model whose arrays may be `jax.ShapeDtypeStruct`s, and whose settings may be others."""
    run = Path(run)
    steps = saved_steps(run)
    if not steps:
        raise CheckpointError(f"{run}: it has no checkpoint yet; train it first, by the stage `train` or `sgm.train`.")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise CheckpointError(f"{run}: it has no checkpoint of step {step}; it has {', '.join(map(str, steps))}.")
    trained = restore_checkpoint(run, step, model, ".average" if average else ".model")
    if has_learned_part(sde):
        sde = eqx.combine(restore_checkpoint(run, step, learned_part(sde), ".learned"), sde)
    return sde, trained
