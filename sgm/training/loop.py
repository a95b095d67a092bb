"""Training: the state, one step, the loop."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from sgm.checks import check_at_least, warn_of_scale
from sgm.likelihood import AbstractDequantisation, UniformDequantisation
from sgm.likelihood.prior_mismatch import warn_of_mismatch
from sgm.model.base import AbstractModel
from sgm.nn.condition import Condition
from sgm.parallel import local_mesh, replicate, shard
from sgm.sde.base import AbstractSDE
from sgm.training.checkpoint import CheckpointError, checkpoint_path, latest_step, restore_checkpoint, save_checkpoint
from sgm.training.fingerprint import check_same_run, describe, fingerprint, structure_of, write_fingerprint
from sgm.training.learned_schedule import (
    check_trains_schedule,
    end_terms,
    has_learned_part,
    learned_part,
    schedule_gradients,
)
from sgm.training.loss import check_loss, perturb, weighted_errors
from sgm.training.objective import AbstractObjective, Squared
from sgm.training.times import AbstractTimeSampling
from sgm.training.weightings import AbstractWeighting

# A number that no step has, so that what is held out shares no randomness with training.
_NO_STEP = 2**32 - 1

Batch = tuple[Shaped[Array | np.ndarray, "batch *shape"], Condition | None]


class TrainingDiverged(Exception):
    """The loss or its gradient is no longer finite."""


class TrainState(eqx.Module):
    """All that changes in training; `process` is the learned part of `Recipe.sde`."""

    process: PyTree
    model: AbstractModel
    average: AbstractModel
    process_opt_state: PyTree
    opt_state: PyTree
    step: Int[Array, ""]


class Recipe(eqx.Module):
    """All that does not change in training; the randomness of a step is a function of `key` and the step alone.

    - `levels`: the number of grey levels of integer data, None for real data.
    - `dequantisation`: what makes real numbers of them, afresh every step.
    - `average_decay`: of the exponential average of the weights, reached from below as (1 + step) / (10 + step).
    - `condition_dropout`: the probability with which an example's condition is dropped.
    - `accumulate`: the number of equal parts of a batch whose gradients are found one after the other, to save memory.
      It changes neither the randomness nor, but for rounding, the result.
    - `process_optimiser`: of the learned part of `sde`. A clip over all of it would let the interior's gradient, which
      is by far the larger, scale that of the ends.
    """

    sde: AbstractSDE
    weighting: AbstractWeighting
    times: AbstractTimeSampling
    optimiser: optax.GradientTransformation
    average_decay: float
    levels: int | None
    key: PRNGKeyArray
    objective: AbstractObjective = Squared()
    dequantisation: AbstractDequantisation = UniformDequantisation()
    condition_dropout: float = 0.0
    accumulate: int = 1
    process_optimiser: optax.GradientTransformation = optax.adam(1e-3)

    def __check_init__(self):
        check_at_least("Recipe", "accumulate", self.accumulate)
        check_loss(self.sde, self.weighting, self.times, self.objective)
        check_trains_schedule(self.sde, self.weighting, self.times, self.objective)

    def start(self, model: AbstractModel) -> TrainState:
        """The state before the first step. `model` is copied, so that its own buffers are never given up."""
        process, model, average = (
            jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, start)
            for start in (learned_part(self.sde), model, model)
        )
        return TrainState(
            process=process,
            model=model,
            average=average,
            process_opt_state=self.process_optimiser.init(process) if has_learned_part(self.sde) else None,
            opt_state=self.optimiser.init(eqx.filter(model, eqx.is_inexact_array)),
            step=jnp.zeros((), jnp.int32),
        )


def adam(learning_rate: float, warmup: int, steps: int, clip: float) -> optax.GradientTransformation:
    """Adam on gradients clipped to global norm `clip`; its rate rises linearly, then falls to zero as a cosine."""
    warmup = min(warmup, steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, steps)
    return optax.chain(optax.clip_by_global_norm(clip), optax.adam(schedule))


def gradient_rms(state: TrainState) -> PyTree:
    """Of each trained entry of the model, the root of Adam's running mean of its squared gradients, clipped."""
    return jax.tree.map(jnp.sqrt, optax.tree.get(state.opt_state, "nu"))


@eqx.filter_jit(donate="all-except-first")
def train_step(fixed: tuple[Recipe, Batch], state: TrainState) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One step of gradient descent. The buffers of `state` are given up."""
    recipe, batch = fixed
    loss, gradients, process_gradients = loss_and_gradients(recipe, batch, state)
    weights, rest = eqx.partition(state.model, eqx.is_inexact_array)
    averages, average_rest = eqx.partition(state.average, eqx.is_inexact_array)
    weights, opt_state = _descend(recipe.optimiser, gradients, state.opt_state, weights)
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    process, process_opt_state = state.process, state.process_opt_state
    if has_learned_part(recipe.sde):
        metrics["process_gradient_norm"] = optax.tree.norm(process_gradients)
        process, process_opt_state = _descend(recipe.process_optimiser, process_gradients, process_opt_state, process)
    step = state.step.astype(loss.dtype)
    decay = jnp.minimum(recipe.average_decay, (1 + step) / (10 + step))
    averages: Any = optax.incremental_update(weights, averages, 1 - decay)
    model, average = eqx.combine(weights, rest), eqx.combine(averages, average_rest)
    return TrainState(process, model, average, process_opt_state, opt_state, state.step + 1), metrics


def _descend(optimiser, gradients, opt_state, parameters):
    updates, opt_state = optimiser.update(gradients, opt_state, parameters)
    return eqx.apply_updates(parameters, updates), opt_state


def loss_and_gradients(recipe: Recipe, batch: Batch, state: TrainState) -> tuple[Float[Array, ""], PyTree, PyTree]:
    """The loss of a batch at a step, its gradients by the model's real arrays, and those that train the process.

    Where the process is trained the loss has the terms of its ends: it is the bound, in nats a dimension.
    """
    sde = eqx.combine(state.process, recipe.sde)
    key = jr.fold_in(recipe.key, state.step)
    perturbed = _perturbed(recipe, sde, state.model, batch, key, recipe.condition_dropout)
    errors, gradients, by_levels = _errors_and_gradients(recipe, sde, state.model, perturbed)
    if not has_learned_part(sde):
        return jnp.mean(errors), gradients, None
    loss = jnp.mean(errors + end_terms(sde, perturbed.x0))
    return loss, gradients, schedule_gradients(sde, perturbed.t, perturbed.x0, errors, by_levels)


@eqx.filter_jit
def held_out_loss(recipe: Recipe, state: TrainState, batch: Batch) -> Float[Array, ""]:
    """The loss of the averaged weights on a batch, with no dropout and the same randomness at every step."""
    sde = eqx.combine(state.process, recipe.sde)
    perturbed = _perturbed(recipe, sde, state.average, batch, jr.fold_in(recipe.key, _NO_STEP), 0.0)
    without_dropout = eqx.tree_at(lambda perturbed: perturbed.key, perturbed, None)
    errors = weighted_errors(sde, state.average, without_dropout, recipe.objective)
    return jnp.mean(errors + end_terms(sde, perturbed.x0) if has_learned_part(sde) else errors)


def _perturbed(recipe, sde, model, batch, key, condition_dropout):
    key_data, key_loss = jr.split(key)
    x, cond = batch
    how = {"weighting": recipe.weighting, "times": recipe.times, "condition_dropout": condition_dropout}
    return perturb(sde, model, _as_seen(recipe, x, key_data), key_loss, cond=cond, **how)


def _as_seen(recipe, x, key):
    """Examples as the model sees them."""
    x = jnp.asarray(x)
    return x if recipe.levels is None else recipe.dequantisation.training(x, recipe.levels, key)


def _errors_and_gradients(recipe, sde, model, perturbed):
    """The errors of perturbed examples, and the gradients of their mean by weights and by levels."""
    weights, rest = eqx.partition(model, eqx.is_inexact_array)

    def of_part(part):
        def mean_error(weights, levels):
            of_levels = dataclasses.replace(part, levels=levels)
            errors = weighted_errors(sde, eqx.combine(weights, rest), of_levels, recipe.objective)
            return jnp.mean(errors), errors

        (_, errors), gradients = jax.value_and_grad(mean_error, (0, 1), has_aux=True)(weights, part.levels)
        return errors, *gradients

    if recipe.accumulate == 1:
        return of_part(perturbed)
    # Part i has every accumulate-th example from the i-th, so that each device goes on with its own.
    parts = jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf.reshape(-1, recipe.accumulate, *leaf.shape[1:]), 1, 0), perturbed
    )

    def add(total, part):
        errors, by_weights, by_levels = of_part(part)
        return jax.tree.map(jnp.add, total, by_weights), (errors, by_levels)

    total, each = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, weights), parts)
    errors, by_levels = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(-1), each)
    total, by_levels = jax.tree.map(lambda leaf: leaf / recipe.accumulate, (total, by_levels))
    return errors, total, by_levels


def train(
    recipe: Recipe,
    state: TrainState,
    batches: Callable[[int, int], Iterator[Batch]],
    steps: int,
    run: Path,
    *,
    log_every: int = 50,
    checkpoint_every: int = 1000,
    sample_every: int = 1000,
    on_sample: Callable[[TrainState], None] = lambda state: None,
    held_out: Batch | None = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """Train a model, from `state` or from the last checkpoint in the folder `run`.

    Arguments:
        recipe: how the model is trained.
        state: where a new run begins, as `recipe.start(model)`. Its buffers are given up.
        batches: `batches(start, stop)` yields the batches of those steps, the same ones at every call.
        steps: the number of steps of the whole run.
        run: the folder of the run. Each step's metrics become a line of `metrics.jsonl`, the state goes to
            `checkpoints`, and what the run was begun with to `fingerprint.json`.
        log_every, checkpoint_every, sample_every: after how many steps metrics and states are written and `on_sample`
            is called; all of it is done at the end as well.
        on_sample: is given the state, as to draw samples of it.
        held_out: examples that are not trained on. With every checkpoint the loss of the averaged weights on them is
            logged as `held_out_loss`.
        mesh: devices over which each batch is split, by default all of this machine's.

    Returns:
        The last state.

    Raises:
        RunMismatch: where `run` has a checkpoint and was begun with another recipe, another structure of the model or
            other batches. Optimisers are told apart by their updates at many step counts.
        TrainingDiverged: at the first loss or gradient that is not finite.
        ValueError: for a batch or held-out examples that the devices cannot share evenly.
    """
    mesh = local_mesh() if mesh is None else mesh
    first = next(batches(0, 1), None)
    if first is None:
        raise ValueError("train: batches(0, 1) yields nothing; let it yield the batch of the first step at every call.")
    seen = _as_seen(recipe, first[0], recipe.key)
    warn_of_scale("train", seen)
    warn_of_mismatch("train", recipe.sde, seen)
    if held_out is not None and len(held_out[0]) % mesh.size:
        raise ValueError(
            f"train: {mesh.size} devices cannot share {len(held_out[0])} held-out examples evenly; pass a multiple."
        )
    held_out = None if held_out is None else shard(held_out, mesh)
    run.mkdir(parents=True, exist_ok=True)
    begun_with = fingerprint(recipe, state.model, first)
    saved = latest_step(run)
    if saved is None:
        write_fingerprint(run, begun_with)
    else:
        check_same_run("train", run, begun_with)
        state = restore_checkpoint(run, saved, state)
    state = replicate(state, mesh)
    start = saved or 0
    if start >= steps:
        print(f"train: nothing to train, since {start} of {steps} steps are done in {run}", flush=True)
        return state
    metrics_file = run / "metrics.jsonl"
    _truncate(metrics_file, start)
    pending, shown = [], {}
    from tqdm import tqdm  # here, because importing sgm loads no more than it needs

    with tqdm(desc="train", total=steps, initial=start, unit="step") as bar:
        for step, batch in enumerate(batches(start, steps), start + 1):
            check_batch(len(batch[0]), recipe.accumulate, mesh.size)
            if step == start + 1:
                bar.set_postfix_str("compiling")
            state, metrics = train_step((recipe, shard(batch, mesh)), state)
            if step == start + 1:
                bar.set_postfix_str("")
            ends = step == steps
            saves, shows = (ends or step % every == 0 for every in (checkpoint_every, sample_every))
            if saves and held_out is not None:
                metrics["held_out_loss"] = held_out_loss(recipe, state, held_out)
            pending.append(metrics)
            if saves or shows or step % log_every == 0:
                shown |= _log(metrics_file, step, jax.device_get(pending), run)
                bar.set_postfix(shown, refresh=False)
                bar.update(len(pending))
                pending = []
            if shows:
                on_sample(state)
            if saves:
                save_checkpoint(run, step, state)
    return state


def load_run(run: Path, recipe: Recipe, model: AbstractModel) -> TrainState:
    """Load the newest state of a run of `train`.

    Arguments:
        run: the folder of the run.
        recipe: the run's recipe, or one whose optimiser keeps the same arrays.
        model: a model of the same structure as the run's. Its weights do not matter.

    Returns:
        The state. `state.average` is the model with averaged weights, `state.model` that with the raw ones, and
        `equinox.combine(state.process, recipe.sde)` the process, where that is trained.

    Raises:
        CheckpointError: where there is no checkpoint, or it is damaged or of another optimiser.
        RunMismatch: where the run's model has another structure or another setting, naming it.
    """
    step = latest_step(run)
    if step is None:
        raise CheckpointError(f"load_run: there is no checkpoint in {run}; pass the folder of a run of `train`.")
    check_same_run("load_run", run, {"model": describe(model, structure_of)})
    return restore_checkpoint(run, step, eqx.filter_eval_shape(recipe.start, model))


def check_batch(batch_size: int, accumulate: int, devices: int) -> None:
    """Raise unless the devices share every part of a batch evenly."""
    if batch_size % (accumulate * devices):
        raise ValueError(
            f"train: a batch of {batch_size} cannot be split into accumulate = {accumulate} parts for {devices} "
            "devices each; pass batches of a multiple of their product."
        )


def _truncate(metrics_file, step):
    """Keep the lines of the first `step` steps, so that a resumed run writes each step once."""
    if metrics_file.exists():
        part = metrics_file.with_suffix(".part")
        part.write_text("".join(metrics_file.read_text().splitlines(keepends=True)[:step]))
        part.replace(metrics_file)


def _log(metrics_file, step, pending, run):
    """Write the metrics of the steps up to `step`, and return in words their mean loss and the last held-out loss."""
    first = step - len(pending) + 1
    with metrics_file.open("a") as file:
        for number, metrics in enumerate(pending, first):
            values = {name: float(value) for name, value in metrics.items()}
            if not all(math.isfinite(value) for value in values.values()):
                raise TrainingDiverged(_diverged(number, values, run))
            file.write(json.dumps({"step": number, **values}) + "\n")
    shown = {"loss": np.mean([metrics["loss"] for metrics in pending])}
    if "held_out_loss" in pending[-1]:
        shown["held_out"] = pending[-1]["held_out_loss"]
    return {name: f"{value:.4f}" for name, value in shown.items()}


def _diverged(step, values, run):
    saved = latest_step(run)
    good = "there is no checkpoint yet" if saved is None else f"the last good one is {checkpoint_path(run, saved)}"
    said = " and the ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
    return (
        f"train: at step {step} the {said}; {good}; "
        "lower the learning rate or the clip, or look for bad values in the data; then begin in another folder."
    )
