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
from tqdm import tqdm

from sgm.checkpoint import checkpoint_path, latest_step, restore_checkpoint, save_checkpoint
from sgm.checks import check_at_least
from sgm.likelihood import AbstractDequantisation, UniformDequantisation
from sgm.loss import AbstractTimeSampling, AbstractWeighting, check_loss, perturb, weighted_errors
from sgm.model.base import AbstractModel
from sgm.model.condition import Condition
from sgm.objective import AbstractObjective, Squared
from sgm.parallel import local_mesh, replicate, shard
from sgm.sde.base import AbstractSDE
from sgm.train_schedule import check_trains_schedule, end_terms, has_learned_part, learned_part, schedule_gradients

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
    x, cond = batch
    sde = eqx.combine(state.process, recipe.sde)
    key_data, key_loss = jr.split(jr.fold_in(recipe.key, state.step))
    if recipe.levels is not None:
        x = recipe.dequantisation.training(jnp.asarray(x), recipe.levels, key_data)
    perturbed = perturb(
        sde,
        state.model,
        jnp.asarray(x),
        key_loss,
        cond=cond,
        weighting=recipe.weighting,
        times=recipe.times,
        condition_dropout=recipe.condition_dropout,
    )
    errors, gradients, by_levels = _errors_and_gradients(recipe, state.model, perturbed)
    if not has_learned_part(sde):
        return jnp.mean(errors), gradients, None
    loss = jnp.mean(errors + end_terms(sde, perturbed.x0))
    return loss, gradients, schedule_gradients(sde, perturbed.t, perturbed.x0, errors, by_levels)


def _errors_and_gradients(recipe, model, perturbed):
    """The errors of perturbed examples, and the gradients of their mean by weights and by levels."""
    weights, rest = eqx.partition(model, eqx.is_inexact_array)

    def of_part(part):
        def mean_error(weights, levels):
            of_levels = dataclasses.replace(part, levels=levels)
            errors = weighted_errors(eqx.combine(weights, rest), of_levels, recipe.objective)
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
    mesh: Mesh | None = None,
) -> TrainState:
    """Train up to `steps` from `state`, whose buffers are given up, or from the last checkpoint in the folder `run`.

    `batches(start, stop)` yields the batches of those steps. Each step's metrics become a line of `run/metrics.jsonl`.
    The state goes to `run/checkpoints` every `checkpoint_every` steps and at the end; every `sample_every` steps
    `on_sample` is called. Each batch is split over the devices of `mesh`, by default all of this machine's.
    Raises `TrainingDiverged` at the first loss or gradient that is not finite.
    """
    mesh = local_mesh() if mesh is None else mesh
    run.mkdir(parents=True, exist_ok=True)
    saved = latest_step(run)
    if saved is not None:
        state = restore_checkpoint(run, saved, state)
    state = replicate(state, mesh)
    start = saved or 0
    metrics_file = run / "metrics.jsonl"
    _truncate(metrics_file, start)
    pending = []
    with tqdm(desc="train", total=steps, initial=start, unit="step") as bar:
        for step, batch in enumerate(batches(start, steps), start + 1):
            check_batch(len(batch[0]), recipe.accumulate, mesh.size)
            state, metrics = train_step((recipe, shard(batch, mesh)), state)
            pending.append(metrics)
            ends = step == steps
            saves, shows = (ends or step % every == 0 for every in (checkpoint_every, sample_every))
            if saves or shows or step % log_every == 0:
                loss = _log(metrics_file, step, jax.device_get(pending), run)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update(len(pending))
                pending = []
            if shows:
                on_sample(state)
            if saves:
                save_checkpoint(run, step, state)
    return state


def check_batch(batch_size: int, accumulate: int, devices: int) -> None:
    """Raise unless the devices share every part of a batch evenly."""
    if batch_size % (accumulate * devices):
        raise ValueError(
            f"train: a batch of {batch_size} cannot be split into accumulate = {accumulate} parts for {devices} "
            "devices each; pass a multiple of their product as train.batch_size."
        )


def _truncate(metrics_file, step):
    """Keep the lines of the first `step` steps, so that a resumed run writes each step once."""
    if metrics_file.exists():
        part = metrics_file.with_suffix(".part")
        part.write_text("".join(metrics_file.read_text().splitlines(keepends=True)[:step]))
        part.replace(metrics_file)


def _log(metrics_file, step, pending, run):
    """Write the metrics of the steps up to `step`; their mean loss."""
    first = step - len(pending) + 1
    with metrics_file.open("a") as file:
        for number, metrics in enumerate(pending, first):
            values = {name: float(value) for name, value in metrics.items()}
            if not all(math.isfinite(value) for value in values.values()):
                raise TrainingDiverged(_diverged(number, values, run))
            file.write(json.dumps({"step": number, **values}) + "\n")
    return float(np.mean([metrics["loss"] for metrics in pending]))


def _diverged(step, values, run):
    saved = latest_step(run)
    good = "there is no checkpoint yet" if saved is None else f"the last good one is {checkpoint_path(run, saved)}"
    said = " and the ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
    return (
        f"train: at step {step} the {said}; {good}; "
        "lower train.learning-rate or train.clip, or look for bad values in the data; then begin in another folder."
    )
