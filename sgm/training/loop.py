"""The loop of training: batches in, checkpoints and metrics out."""

import contextlib
import dataclasses
import functools
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from sgm.checks import check_count, check_instance, check_key, warn_of_scale
from sgm.data import AbstractDataset, prefetch
from sgm.likelihood import AbstractDequantisation, UniformDequantisation
from sgm.likelihood.prior_mismatch import warn_of_mismatch
from sgm.model.reverse import Model, check_fit, check_pair
from sgm.nn.condition import condition_from
from sgm.nn.conditioning import warn_of_params
from sgm.parallel.devices import check_mesh, own_rows, replicate, shard
from sgm.parallel.devices import mesh as all_devices
from sgm.parallel.placement import AbstractPlacement, Sharded
from sgm.parallel.processes import check_one_disk, is_first, local, told_of_lost_processes, wait_for_all
from sgm.sde.base import AbstractSDE
from sgm.sde.process import Process
from sgm.training.base import AbstractLoss
from sgm.training.checkpoint import Checkpoints, latest_step, restore_checkpoint
from sgm.training.fingerprint import FILE, check_same_run, fingerprint, write_fingerprint
from sgm.training.learned_schedule import ScheduleRecipe, has_learned_part
from sgm.training.loss import Loss
from sgm.training.metrics import History, TrainingDiverged, with_remedy
from sgm.training.preemption import Preempted, Preemption
from sgm.training.settings import AbstractOptimiser, Adam, check_average_decay
from sgm.training.step import AbstractRecipe, Batch, Recipe, all_but, begun, held_out_loss, train_step
from sgm.training.waits import Waits

Callback = Callable[[int, dict[str, float], Any], None]


def train(
    sde: Process,
    model: Model,
    data: AbstractDataset,
    key: PRNGKeyArray,
    *,
    steps: int,
    batch_size: int = 128,
    loss: AbstractLoss = Loss(),
    optimiser: AbstractOptimiser | optax.GradientTransformation = Adam(),
    average_decay: float = 0.999,
    dequantisation: AbstractDequantisation = UniformDequantisation(),
    accumulate: int = 1,
    frozen: Callable[[Any], Any] | None = None,
    run: str | Path | None = None,
    log_every: int = 50,
    checkpoint_every: int = 500,
    keep: int = 2,
    keep_best: int = 0,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    mesh: Mesh | None = None,
    placement: AbstractPlacement = Sharded(),
) -> tuple[Process, Model, dict[str, np.ndarray]]:
    """Train a model on a data set.

    Arguments:
        sde: Process. A `LearnedLogSNR` in it is trained as well.
        model: Model to begin with. It is left as it is.
        data: Data set. A held-out loss is found on its split "test", where that has examples.
        key: Key of all randomness.
        steps: Number of steps, of the whole run.
        batch_size: Number of examples of a step.
        loss: Loss.
        optimiser: Optimiser of the weights: a setting of `sgm.training`, or any transformation of optax.
        average_decay: Decay of the exponential average of the weights.
        dequantisation: Rule that makes real numbers of grey levels.
        accumulate: Number of parts of a batch whose gradients are found one after the other, to save memory.
        frozen: Function whose value at the model is the part of it, or the list of parts, that stays as it is:
            `lambda model: model.network.blocks[:2]` for the first two blocks. By default all weights are trained.
        run: Folder of the run. It keeps checkpoints and the metrics of each step, and a call with the same arguments
            goes on from its last checkpoint. Without it nothing is written.
        log_every: Number of steps between two looks at the metrics.
        checkpoint_every: Number of steps between two checkpoints, and between two held-out losses.
        keep: Number of newest checkpoints that are kept.
        keep_best: Number of checkpoints of least held-out loss that are kept besides.
        callbacks: Functions that are called as `callback(step, metrics, state)` at every look at the metrics, with
            floats by their names and the state, whose `model` and `average` are the raw and the averaged model. The
            state's arrays are given up by the next step: use them at once, or copy them.
        progress: Whether a bar is shown.
        mesh: Devices over which each batch is split, by default all of all processes (see `sgm.parallel.mesh`). One of
            your own has the axes "data" and "model", and the devices of each process next to one another.
        placement: Rule that says which arrays of the state are cut over the devices. It changes nothing unless the mesh
            has more than one device along its axis "model".

    Returns:
        The process, with what of it is trained; the model with averaged weights; and the history, arrays by name:
        "step", "loss", "gradient_norm", and "held_out_loss", which is nan at steps where it was not found.

    Raises:
        TypeError: for arguments of other types, and numbers that are not whole.
        RunMismatch: where `run` was begun with other arguments, naming them.
        TrainingDiverged: at the first loss or gradient that is not finite.
        ProcessLost: where another process of the run has ended.
        Preempted: after SIGTERM, once the checkpoint of the last step is written, if there is a `run`.
        CheckpointError: where a checkpoint cannot be written.
        ValueError: for batches that the devices cannot share evenly, a mesh or a placement that does not fit, units
            that do not fit the data, and `frozen` that gives no part of the model or leaves nothing to train.

    Example:
        >>> sde, model, history = sgm.train(sgm.VP(), model, data, jr.key(0), steps=20, batch_size=32)
        >>> history["loss"].shape
        (20,)
    """
    check_pair("train", sde, model)
    check_instance("train", "data", data, AbstractDataset, "sgm.data.Arrays(x)")
    check_instance("train", "loss", loss, AbstractLoss, "sgm.training.Loss()")
    kinds = AbstractOptimiser | optax.GradientTransformation
    check_instance("train", "optimiser", optimiser, kinds, "sgm.training.Adam(1e-3) or optax.adam(1e-3)")
    every = {"log_every": log_every, "checkpoint_every": checkpoint_every, "keep": keep}
    for name, number in {"steps": steps, "batch_size": batch_size, "accumulate": accumulate, **every}.items():
        check_count("train", name, number)
    check_count("train", "keep_best", keep_best, 0)
    check_instance("train", "placement", placement, AbstractPlacement, "sgm.parallel.Sharded()")
    check_instance("train", "callbacks", callbacks, Sequence, remedy="pass a list, as [callback]")
    for callback in callbacks:
        remedy = "pass functions callback(step, metrics, state)"
        check_instance("train", "callbacks", callback, Callable, remedy=remedy)
    check_average_decay("train", average_decay)
    _check_fit(model, data)
    check_key("train", key)
    _warn_of_no_masking(model, loss)
    trained = None if frozen is None else all_but(frozen, model)
    levels = None if model.takes_levels else data.levels
    recipe = _recipe(sde, loss, optimiser, steps, key, average_decay, levels, dequantisation, accumulate, trained)
    mesh = all_devices() if mesh is None else check_mesh("train", mesh)
    _check_batch(batch_size, accumulate, mesh.size)
    seed = int(jr.bits(jr.fold_in(key, zlib.crc32(b"data"))))
    rows = own_rows(mesh, batch_size)

    def batch(step: int) -> Batch:
        return _standardised(model, *data.part_of_batch(step, batch_size, seed, *rows))

    first = _standardised(model, *data.batch(0, batch_size, seed))
    if first[1] is not None and first[1].params is not None:
        warn_of_params("train", model, first[1].params)
    if data.levels is None:
        warn_of_scale("train", first[0])
        if isinstance(sde, AbstractSDE):
            warn_of_mismatch("train", sde, first[0])
    folder, start = None if run is None else Path(run), 0
    state, places = begun(recipe, model, mesh, placement)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        begun_with = fingerprint(recipe, optimiser, steps, model, first)
        saved = latest_step(folder)
        wait_for_all("train: the run is found")
        if saved is None and is_first():
            write_fingerprint(folder, begun_with)
        check_one_disk("train", folder / FILE, saved or 0)
        if saved is not None:
            check_same_run("train", folder, begun_with)
            start, state = saved, restore_checkpoint(folder, saved, state)
    history = History(folder, start)
    if start >= steps:
        print(f"train: nothing to train, since {start} of {steps} steps are done in {folder}", flush=True)
        return local(state.process(sde)), local(state.average), history.arrays()
    loop = _Loop(
        recipe,
        places,
        mesh,
        history,
        _held_out(model, data, batch_size, mesh),
        log_every,
        checkpoint_every,
        callbacks,
        progress and is_first(),
    )
    try:
        with contextlib.ExitStack() as until_the_end:
            if folder is not None:
                kept = Checkpoints(folder, keep, keep_best, history.held_out_loss)
                loop.checkpoints = until_the_end.enter_context(kept)
                loop.preemption = until_the_end.enter_context(Preemption())
            until_the_end.enter_context(told_of_lost_processes("train"))
            state = loop(state, prefetch(batch, start, steps), range(start + 1, steps + 1))
    except TrainingDiverged as error:
        raise with_remedy(error, folder) from None
    return local(state.process(sde)), local(state.average), history.arrays()


@dataclasses.dataclass
class _Loop:
    """The loop over steps, with all that it needs but the state and the batches."""

    recipe: AbstractRecipe
    places: PyTree
    mesh: Mesh
    history: History
    held_out: Batch | None
    log_every: int
    checkpoint_every: int
    callbacks: Sequence[Callback]
    progress: bool
    checkpoints: Checkpoints | None = None
    preemption: Preemption | None = None

    def __call__(self, state: Any, batches: Iterator[Batch], steps: range) -> Any:
        """The state after these steps."""
        from tqdm.auto import tqdm  # here, because it looks for a notebook when it is imported

        last, waits, pending = steps.stop - 1, Waits(batches), []
        with tqdm(desc="train", total=last, initial=steps.start - 1, unit="step", disable=not self.progress) as bar:
            for step, batch in zip(steps, waits, strict=True):
                if step == steps.start:
                    bar.set_postfix_str("compiling")
                state, metrics = train_step((self.recipe, shard(batch, self.mesh)), state, self.places)
                waits.stepped(metrics["loss"])
                if step == steps.start:
                    bar.set_postfix_str("")
                stops = self.preemption is not None and self.preemption.is_due(step)
                ends = stops or step == last
                saves, looks = (ends or step % every == 0 for every in (self.checkpoint_every, self.log_every))
                if saves and self.held_out is not None:
                    metrics["held_out_loss"] = held_out_loss(self.recipe, state, self.held_out, self.mesh)
                pending.append(metrics)
                if saves or looks:
                    values = self.history.add(step, jax.device_get(pending), durable=saves)
                    bar.set_postfix_str(self.history.text() + waits.text(), refresh=False)
                    bar.update(len(pending))
                    pending = []
                if saves and self.checkpoints is not None:
                    self.checkpoints.save(step, state)
                if saves or looks:
                    # After the checkpoint: a callback that fails costs no training.
                    for callback in self.callbacks:
                        callback(step, values, state)
                if stops:
                    self._stop(step, last)
        # After the last step is saved and shown, which takes a while.
        if self.preemption is not None and self.preemption.is_due(last + 1):
            self._stop(last, last)
        return state

    def _stop(self, step: int, last: int) -> None:
        assert self.checkpoints is not None, "runs without a folder do not listen"
        self.checkpoints.wait()
        raise Preempted(f"train: stopped by SIGTERM; step {step} of {last} is saved in {self.history.run}.")


@functools.lru_cache(maxsize=8)
def _built(optimiser: AbstractOptimiser, steps: int) -> optax.GradientTransformation:
    """The optimiser of a setting, the same one at every call, so that a step is compiled once."""
    return optimiser.build(steps)


def _recipe(
    sde, loss, optimiser, steps, key, average_decay, levels, dequantisation, accumulate, trained
) -> AbstractRecipe:
    is_setting = isinstance(optimiser, AbstractOptimiser)
    of_weights = _built(optimiser, steps) if is_setting else optimiser
    recipe = Recipe(sde, loss, of_weights, key, average_decay, levels, dequantisation, accumulate, trained)
    if not has_learned_part(sde):
        return recipe
    return ScheduleRecipe(recipe, _built(optimiser.unclipped(), steps) if is_setting else optimiser)


def _standardised(model, x, fields) -> Batch:
    """A record as a batch: numbers are standardised here, where double precision keeps their digits."""
    is_levels = np.issubdtype(x.dtype, np.integer)
    return (x if is_levels else model.units.standardised(x)), condition_from(fields)


def _held_out(model, data, batch_size, mesh) -> Batch | None:
    """The first test examples, at most a batch of them; None where there are none.

    They are the same for all meshes. Where the devices cannot share them evenly, each has them all.
    """
    n = min(batch_size, data.size("test"))
    if not n:
        return None
    if n % mesh.size:
        return replicate(_standardised(model, *data.rows("test", 0, n)), mesh)
    return shard(_standardised(model, *data.rows("test", *own_rows(mesh, n))), mesh)


def _check_fit(model, data):
    """Raise unless there are data, and the model is of examples like them, in units that fit them."""
    if data.size("train") == 0:
        raise ValueError("train: the split 'train' of the data is empty; add examples to it.")
    check_fit("train", model, data.shape, data.levels)
    if data.missing and not model.takes_missing:
        raise ValueError(
            f"train: the data have missing entries, which a {type(model).__name__} of this network cannot take; build "
            "it with a Transformer, or mend the data."
        )


def _warn_of_no_masking(model, loss):
    if loss.masking is None and getattr(model.conditioning, "observed", None) is not None:
        warnings.warn(
            "train: the network was built with Conditioning(observed=...), but the loss has no masking, so that it "
            "learns nothing of observed entries; pass loss=sgm.Loss(masking=sgm.training.UniformSubsets()), or leave "
            "observed out.",
            stacklevel=3,
        )


def _check_batch(batch_size, accumulate, devices):
    """Raise unless the devices share every part of a batch evenly."""
    if batch_size % (accumulate * devices):
        raise ValueError(
            f"train: a batch of {batch_size} cannot be split into accumulate = {accumulate} parts for {devices} "
            "devices each; pass a batch_size that is a multiple of their product."
        )
