"""How a `LearnedLogSNR` is trained: its ends on the bound, its interior on the variance of the bound's estimate.

With error = weight(t) |estimate.noise - noise|^2 / D under `LikelihoodWeighting`, t uniform and l = -log_snr / 2, the
bound of continuous time on -log p(x0) is, in nats a dimension,

    E[error] + KL(p(x_t1 | x0) || prior) / D + l(t0) + log(2 pi e) / 2

where x0 is left to N(x_t0 / alpha, (sigma/alpha)^2 I). The interior of the schedule does not change it, but changes
E[error^2], and so the variance of an estimate from one t an example.

Reference: Kingma et al. 2021 (VDM, arXiv:2107.00630, section 5 and appendix I.2).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from sgm.likelihood import prior_mismatch
from sgm.model.reverse import AbstractReverseModel
from sgm.parallel.devices import evenly
from sgm.sde import VP, AbstractProcess, AbstractSDE, LearnedLogSNR
from sgm.training.base import Levels, Times
from sgm.training.loss import Loss, Perturbed, levels_at
from sgm.training.objective import Squared
from sgm.training.step import AbstractRecipe, AbstractState, Batch, Recipe, copied, mean_of_first, updates_of
from sgm.training.times import UniformTime
from sgm.training.weightings import LikelihoodWeighting


def learned_part(sde: AbstractProcess) -> PyTree:
    """The process with None in the place of every leaf that is not an array of a `LearnedLogSNR`."""

    def is_learned(node):
        return isinstance(node, LearnedLogSNR)

    return eqx.filter(eqx.filter(sde, is_learned, is_leaf=is_learned), eqx.is_inexact_array)


def has_learned_part(sde: AbstractProcess) -> bool:
    """Whether the process has anything to train."""
    return bool(jax.tree.leaves(learned_part(sde)))


class ScheduleState(AbstractState):
    """The state of a model and of the process that is trained beside it; `learned` is what of that changes."""

    model: AbstractReverseModel
    average: AbstractReverseModel
    step: Int[Array, ""]
    opt_state: PyTree
    learned: PyTree
    learned_opt_state: PyTree

    def process(self, sde):
        return eqx.combine(self.learned, sde)


class ScheduleRecipe(AbstractRecipe):
    """How a model is trained, and a learned schedule beside it. The loss is the bound, in nats a dimension.

    Arguments:
        recipe: How the model is trained.
        optimiser: Optimiser of the schedule. A clip over all of it would let the interior's gradient, which is by far
            the larger, scale that of the ends.
    """

    recipe: Recipe
    optimiser: optax.GradientTransformation

    def __check_init__(self):
        sde, loss = self.recipe.sde, self.recipe.loss
        if not (isinstance(sde, VP) and 0 <= sde.t0 <= 1e-3 and sde.t1 == 1):
            raise ValueError(
                f"LearnedLogSNR: its ends are those of a VP on [0, 1], but the process is {type(sde).__name__} on "
                f"[{sde.t0}, {sde.t1}]; pass a VP with t0 of at most 1e-3 and t1 = 1."
            )
        given = (loss.weighting, loss.times, loss.objective) if isinstance(loss, Loss) else (loss,)
        if not (len(given) == 3 and all(map(isinstance, given, (LikelihoodWeighting, UniformTime, Squared)))):
            names = ", ".join(type(part).__name__ for part in given)
            raise ValueError(
                f"LearnedLogSNR: it is trained on the bound at uniform times, but the loss is of {names}; pass "
                "LikelihoodWeighting, UniformTime and Squared, or a fixed schedule."
            )

    @property
    def sde(self) -> VP:
        """The process."""
        assert isinstance(self.recipe.sde, VP)  # It has been looked at.
        return self.recipe.sde

    def start(self, model):
        learned, state = copied(learned_part(self.sde)), self.recipe.start(model)
        learned_opt_state = self.optimiser.init(learned)
        return ScheduleState(state.model, state.average, state.step, state.opt_state, learned, learned_opt_state)

    def step(self, state, batch):
        loss, gradients, by_learned = self.loss_and_gradients(state, batch)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
        metrics["process_gradient_norm"] = optax.tree.norm(by_learned)
        model, average, opt_state = self.recipe.descend(state, gradients)
        updates, learned_opt_state = updates_of(self.optimiser, by_learned, state.learned_opt_state, state.learned)
        learned = eqx.apply_updates(state.learned, updates)
        return ScheduleState(model, average, state.step + 1, opt_state, learned, learned_opt_state), metrics

    def loss_and_gradients(self, state: ScheduleState, batch: Batch) -> tuple[Float[Array, ""], PyTree, PyTree]:
        """The bound in nats a dimension, its gradients by the weights, and those that train the schedule."""
        sde = state.process(self.sde)
        perturbed = self.recipe.drawn(sde, state, batch)
        assert isinstance(perturbed, Perturbed)  # The loss has been looked at.
        errors, gradients, by_levels = self.recipe.errors_and_gradients(sde, state.model, perturbed)
        bound = jnp.mean(errors + end_terms(sde, perturbed.x0))
        return bound, gradients, schedule_gradients(sde, perturbed.t, perturbed.x0, errors, by_levels)

    def held_out(self, state, batch, mesh=None):
        sde = state.process(self.sde)
        examples = evenly(self.recipe.held_out_examples(sde, state, batch), mesh)
        assert isinstance(examples, Perturbed)
        errors = self.recipe.loss.errors(sde, state.average, examples)
        return mean_of_first(len(batch[0]), errors + end_terms(sde, examples.x0))


def end_terms(sde: AbstractSDE, x0: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """What the ends of a process add to the bound on -log p(x0), in nats a dimension; no network is asked."""
    dim = x0[0].size
    last = 0.5 * math.log(2 * math.pi * math.e) + sde.level(sde.t0)
    return prior_mismatch(sde, x0) / dim + last


def schedule_gradients(
    sde: AbstractSDE,
    t: Times,
    x0: Float[Array, "batch *shape"],
    errors: Float[Array, " batch"],
    by_levels: Levels,
) -> PyTree:
    """By the learned part of `sde`: of the mean bound for its ends, of the mean squared error for all else.

    `by_levels` are the derivatives of the mean of `errors` by each example's `levels_at(sde, ..., t)`. So no network is
    asked again.
    """
    learned = learned_part(sde)

    def levels(learned):
        return levels_at(eqx.combine(learned, sde), LikelihoodWeighting(), UniformTime(), t)

    def ends(learned):
        return jnp.mean(end_terms(eqx.combine(learned, sde), x0))

    _, pull_back = jax.vjp(levels, learned)
    (of_errors,) = pull_back(by_levels)
    (of_squares,) = pull_back(jax.tree.map(lambda slope: 2 * errors * slope, by_levels))
    of_bound = jax.tree.map(jnp.add, of_errors, jax.grad(ends)(learned))
    return eqx.tree_at(lambda process: process.schedule.ends, of_squares, of_bound.schedule.ends)
