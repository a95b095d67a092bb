"""One step of training, and the state that it changes."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from sgm.checks import check_count
from sgm.likelihood import AbstractDequantisation, UniformDequantisation
from sgm.model.base import check_pure_noise
from sgm.model.reverse import AbstractReverseModel, check_pair
from sgm.nn.condition import Condition
from sgm.parallel.devices import evenly, replicate
from sgm.parallel.placement import AbstractPlacement
from sgm.sde.process import AbstractProcess, Process
from sgm.training.base import AbstractDrawn, AbstractLoss

# A number that no step has, so that what is held out shares no randomness with training.
_NO_STEP = 2**32 - 1

# Standardised examples, or grey levels, and their conditions.
Batch = tuple[Shaped[Array | np.ndarray, "batch *shape"], Condition | None]
Metrics = dict[str, Float[Array, ""]]


class AbstractState(eqx.Module):
    """All that changes in training: the model, and its exponential average, at a step."""

    model: eqx.AbstractVar[AbstractReverseModel]
    average: eqx.AbstractVar[AbstractReverseModel]
    step: eqx.AbstractVar[Int[Array, ""]]

    @abstractmethod
    def process(self, sde: Process) -> Process:
        """The process `sde` as it is trained so far."""


class TrainState(AbstractState):
    """The state of a model under a fixed process."""

    model: AbstractReverseModel
    average: AbstractReverseModel
    step: Int[Array, ""]
    opt_state: PyTree

    def process(self, sde):
        return sde


class AbstractRecipe(eqx.Module):
    """All that does not change in training: how a state begins, and how it goes on."""

    @abstractmethod
    def start(self, model: AbstractReverseModel) -> Any:
        """The state before the first step. `model` is copied, so that its own buffers are never given up."""

    @abstractmethod
    def step(self, state: Any, batch: Batch) -> tuple[Any, Metrics]:
        """The state after a step of gradient descent, and its metrics."""

    @abstractmethod
    def held_out(self, state: Any, batch: Batch, mesh: Mesh | None = None) -> Float[Array, ""]:
        """The loss of the averaged weights on a batch, with no dropout and the same randomness at every step.

        The devices of the mesh share the examples, of any number, and change nothing but rounding.
        """


class Recipe(AbstractRecipe):
    """How a model is trained. The randomness of a step is a function of `key` and the step alone.

    Arguments:
        sde: Process.
        loss: Loss.
        optimiser: Optimiser of the weights.
        key: Key of all randomness.
        average_decay: Decay of the exponential average of the weights, reached from below as (1 + step) / (10 + step).
        levels: Number of grey levels of integer data, None for real data and for models of the levels themselves.
        dequantisation: Rule that makes real numbers of them, afresh every step.
        accumulate: Number of equal parts of a batch whose gradients are found one after the other, to save memory. It
            changes neither the randomness nor, but for rounding, the result.
        trained: Whether each leaf of the model is trained, by default all weights (see `all_but`).
    """

    sde: AbstractProcess
    loss: AbstractLoss
    optimiser: optax.GradientTransformation
    key: PRNGKeyArray
    average_decay: float = 0.999
    levels: int | None = None
    dequantisation: AbstractDequantisation = UniformDequantisation()
    accumulate: int = 1
    trained: PyTree[bool] | None = None

    def __check_init__(self):
        check_count("train", "accumulate", self.accumulate)
        self.loss.check(self.sde)

    def start(self, model):
        check_pair("train", self.sde, model)
        check_pure_noise("train", self.sde, model)
        model, average = copied(model), copied(model)
        opt_state = self.optimiser.init(self.split(model)[0])
        return TrainState(model, average, jnp.zeros((), jnp.int32), opt_state)

    def step(self, state, batch):
        errors, gradients, _ = self.errors_and_gradients(self.sde, state.model, self.drawn(self.sde, state, batch))
        metrics = {"loss": jnp.mean(errors), "gradient_norm": optax.tree.norm(gradients)}
        model, average, opt_state = self.descend(state, gradients)
        return TrainState(model, average, state.step + 1, opt_state), metrics

    def held_out(self, state, batch, mesh=None):
        drawn = evenly(self.held_out_examples(self.sde, state, batch), mesh)
        return mean_of_first(len(batch[0]), self.loss.errors(self.sde, state.average, drawn))

    def split(self, model: AbstractReverseModel) -> tuple[PyTree, PyTree]:
        """What of the model is trained, with None in the place of the rest, and the rest."""
        return eqx.partition(model, eqx.is_inexact_array if self.trained is None else self.trained)

    def dequantised(self, x: Any, key: PRNGKeyArray) -> Shaped[Array, "batch *shape"]:
        """Examples of a batch as the model sees them: grey levels fill [-1, 1) of standardised data."""
        x = jnp.asarray(x)
        return x if self.levels is None else self.dequantisation.training(x, self.levels, key)

    def drawn(self, sde: AbstractProcess, state: AbstractState, batch: Batch) -> AbstractDrawn:
        """The examples of a step, with all the randomness of their errors."""
        return self._drawn(sde, state.model, batch, jr.fold_in(self.key, state.step), held_out=False)

    def held_out_examples(self, sde: AbstractProcess, state: AbstractState, batch: Batch) -> AbstractDrawn:
        """Held-out examples with the same randomness at every step, and none of dropout."""
        return self._drawn(sde, state.average, batch, jr.fold_in(self.key, _NO_STEP), held_out=True)

    def _drawn(self, sde, model, batch, key, held_out):
        key_data, key_loss = jr.split(key)
        x, cond = batch
        return self.loss.perturb(sde, model, self.dequantised(x, key_data), key_loss, cond, held_out)

    def errors_and_gradients(
        self, sde: AbstractProcess, model: AbstractReverseModel, drawn: AbstractDrawn
    ) -> tuple[Float[Array, " batch"], PyTree, PyTree]:
        """The errors of drawn examples, and the gradients of their mean by the weights and by the levels."""
        weights, rest = self.split(model)

        def of_part(part):
            def mean_error(weights, levels):
                of_levels = dataclasses.replace(part, levels=levels)
                errors = self.loss.errors(sde, eqx.combine(weights, rest), of_levels)
                return jnp.mean(errors), errors

            (_, errors), gradients = jax.value_and_grad(mean_error, (0, 1), has_aux=True)(weights, part.levels)
            return errors, *gradients

        if self.accumulate == 1:
            return of_part(drawn)
        # Part i has every accumulate-th example from the i-th, so that each device goes on with its own.
        parts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(-1, self.accumulate, *leaf.shape[1:]), 1, 0), drawn)

        def add(total, part):
            errors, by_weights, by_levels = of_part(part)
            return jax.tree.map(jnp.add, total, by_weights), (errors, by_levels)

        total, each = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, weights), parts)
        errors, by_levels = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(-1), each)
        total, by_levels = jax.tree.map(lambda leaf: leaf / self.accumulate, (total, by_levels))
        return errors, total, by_levels

    def descend(self, state: Any, gradients: PyTree) -> tuple[AbstractReverseModel, AbstractReverseModel, PyTree]:
        """The model, its average and the optimiser's state after a step against these gradients."""
        weights, rest = self.split(state.model)
        averages, average_rest = self.split(state.average)
        updates, opt_state = updates_of(self.optimiser, gradients, state.opt_state, weights)
        weights = eqx.apply_updates(weights, updates)
        step = state.step.astype(float)
        decay = jnp.minimum(self.average_decay, (1 + step) / (10 + step))
        averages: Any = optax.incremental_update(weights, averages, 1 - decay)
        return eqx.combine(weights, rest), eqx.combine(averages, average_rest), opt_state


def mean_of_first(n: int, errors: Float[Array, " batch"]) -> Float[Array, ""]:
    """The mean of the first `n` errors. Those after them are of examples that are repeated (see `evenly`)."""
    return jnp.mean(errors, where=jnp.arange(len(errors)) < n)


def all_but(frozen: Callable[[Any], Any], model: AbstractReverseModel) -> PyTree[bool]:
    """Whether each leaf of the model is trained: its weights are, but for those of its frozen parts.

    Arguments:
        frozen: Function whose value at the model is a part of it, or a list or tuple of parts, as the `where` of
            `equinox.tree_at`.
        model: Model.

    Raises:
        ValueError: where what it gives is no part of the model or has no weights, or nothing is left to train.
    """
    weights = jax.tree.map(eqx.is_inexact_array, model)
    if not any(jax.tree.leaves(weights)):
        raise ValueError("train: frozen is given, but the model has no weights; leave it out.")
    remedy = f"pass a function of the model that gives separate parts of it, {_named_parts(weights)}"
    try:
        given = frozen(model)
    except Exception as error:  # Functions of a model fail in many ways.
        reason = str(error).partition("\n")[0]
        raise ValueError(f"train: frozen fails on the model ({type(error).__name__}: {reason}); {remedy}.") from error
    parts = given if isinstance(given, list | tuple) else (given,)
    kinds = ", ".join("None" if part is None else type(part).__name__ for part in parts)
    try:
        trained = eqx.tree_at(frozen, weights, replace_fn=lambda part: jax.tree.map(lambda _: False, part))
    except Exception:  # Equinox's words are of its own call.
        raise ValueError(f"train: frozen gives {kinds}, which are no separate parts of the model; {remedy}.") from None
    if jax.tree.leaves(trained) == jax.tree.leaves(weights):
        raise ValueError(f"train: frozen gives no weights of the model, so that nothing is frozen; {remedy}.")
    if not any(jax.tree.leaves(trained)):
        raise ValueError(f"train: frozen gives all weights of the model, so that nothing is trained; {remedy}.")
    return trained


def _named_parts(weights) -> str:
    """Names of the parts that have weights: of the network, or of the innermost module that has all weights."""
    path, part = "model", weights
    while True:
        fields = [field.name for field in dataclasses.fields(part) if not field.metadata.get("static")]
        names = [name for name in fields if any(jax.tree.leaves(getattr(part, name)))]
        only = getattr(part, names[0])
        if len(names) > 1 or not isinstance(only, eqx.Module):
            return f"such as lambda model: {path}.{names[0]}; {path} has {', '.join(names)}"
        path, part = f"{path}.{names[0]}", only


def updates_of(
    optimiser: optax.GradientTransformation, gradients: PyTree, state: PyTree, weights: PyTree
) -> tuple[PyTree, PyTree]:
    """The updates of the weights against these gradients, and the optimiser's next state."""
    with jax.numpy_dtype_promotion("standard"):  # on which optimisers of optax rely
        return optimiser.update(gradients, state, weights)


def copied(tree: PyTree) -> Any:
    """The tree with copies of its arrays."""
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, tree)


def gradient_rms(state: Any) -> PyTree:
    """The root of Adam's running mean of squared, clipped gradients.

    Arguments:
        state: State of training.

    Returns:
        The root for each entry of the model that Adam trains: not for the matrices of `Muon`.

    Example:
        >>> def report(step, metrics, state):
        ...     print(step, optax.tree.norm(sgm.training.gradient_rms(state)))
        >>> sde, model, history = sgm.train(sde, model, data, key, steps=10, log_every=5, callbacks=[report])
        5 0...
        10 0...
    """
    return jax.tree.map(jnp.sqrt, optax.tree.get(state.opt_state, "nu"))


def begun(
    recipe: AbstractRecipe, model: AbstractReverseModel, mesh: Mesh, placement: AbstractPlacement
) -> tuple[Any, PyTree]:
    """The state before the first step, on its devices, and the sharding of each of its arrays.

    Each device makes its own parts: where the state is cut, no device has to hold the whole.
    """
    if mesh.size == 1:
        return replicate(recipe.start(model), mesh), None
    shapes = eqx.filter_eval_shape(recipe.start, model)
    places = placement.shardings(shapes, mesh)
    arrays, rest = eqx.partition(model, eqx.is_array)

    def start(arrays):
        return eqx.filter(recipe.start(eqx.combine(arrays, rest)), eqx.is_array)

    # Arrays of the host are the same in all processes.
    made = jax.jit(start, out_shardings=places)(jax.device_get(arrays))
    return eqx.combine(made, shapes), places


@eqx.filter_jit(donate="all-except-first")
def train_step(fixed: tuple[AbstractRecipe, Batch], state: Any, places: PyTree = None) -> tuple[Any, Metrics]:
    """One compiled step. The buffers of `state` are given up; its arrays stay at `places`, where they are given."""
    recipe, batch = fixed
    state, metrics = recipe.step(state, batch)
    if places is not None:
        arrays, rest = eqx.partition(state, eqx.is_array)
        state = eqx.combine(jax.lax.with_sharding_constraint(arrays, places), rest)
    return state, metrics


@eqx.filter_jit
def held_out_loss(recipe: AbstractRecipe, state: Any, batch: Batch, mesh: Mesh | None = None) -> Float[Array, ""]:
    """The loss of held-out examples, compiled."""
    return recipe.held_out(state, batch, mesh)
