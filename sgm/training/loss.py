"""Denoising score matching.

With l = log tan(theta) = -log_snr / 2, the loss is the weighted error of the noise estimate, a mean over dimensions,

    loss = E over t ~ U(t0, t1) of weight(t) |estimate.noise - noise|^2 / D

x0 is standardised, by the units of the model. A weighting chooses the loss. A time sampling chooses how it is estimated
and leaves its expectation as it is, but for `ChainSteps`, under which t is one of a chain's own steps. An objective
replaces the squared error.

Where a process ends in pure noise, l is at most `LARGEST_LEVEL`, and weight and density at t1 are those of the last
time before it. The noise is known there, whatever the model: train with `SquaredVelocity()` for an error that counts.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from sgm.checks import check_at_least, check_examples, check_instance, is_traced
from sgm.model.base import AbstractModel, check_process, estimate_of
from sgm.nn.condition import Condition, flat_condition
from sgm.random import normal
from sgm.sde.base import AbstractSDE
from sgm.sde.chain import DiscreteChain
from sgm.sde.level import LARGEST_LEVEL, cos_of, sin_of
from sgm.training.base import AbstractDrawn, AbstractLoss, Levels, Times
from sgm.training.masking import AbstractMasking
from sgm.training.objective import AbstractObjective, Bound, Hybrid, Squared, SquaredVelocity
from sgm.training.times import AbstractTimeSampling, ChainSteps, UniformLogSNR, UniformTime
from sgm.training.weightings import AbstractWeighting, LikelihoodWeighting, UniformWeighting
from sgm.types import Number


class Perturbed(AbstractDrawn):
    """Training examples with all the randomness of their errors, along a leading axis."""

    t: Times
    levels: Levels
    x0: Float[Array, "n *shape"]
    noise: Float[Array, "n *shape"]
    cond: Condition | None
    key: Shaped[Array, "n *words"] | None


class Loss(AbstractLoss):
    """The weighted error of a model at random noise levels, called on clean data.

    Each example has its own noise, dropout and time. The times of a batch are stratified: one uniform offset, shifted
    by i/n for example i, of which each alone has the density of `times` (Kingma et al. 2021, arXiv:2107.00630, I.1).

    Entries that are nan are missing to a network that takes missing entries, as a `Transformer`: their error is 0.

    Arguments:
        weighting: Weight of the error at each time.
        times: Distribution of the times.
        objective: Error of an estimate.
        condition_dropout: Probability with which an example's condition is dropped. Above 0 the network learns a null
            in its place: it is to be built with one, and then draws without a condition as well.
        masking: Which entries of each example are observed, and given to the network as `cond.observed`, so that it
            learns the conditionals of the others; none by default. The network is built with
            `Conditioning(observed=...)`.

    Raises:
        TypeError: for a weighting, times, an objective or a masking of another kind.
        ValueError: for a condition_dropout outside [0, 1).

    Example:
        >>> value_and_gradient = eqx.filter_value_and_grad(lambda model: Loss()(sde, model, x, key))
        >>> value, gradient = eqx.filter_jit(value_and_gradient)(model)

    Reference: Song et al. 2021 (arXiv:2011.13456); Kingma et al. 2021 (VDM, arXiv:2107.00630).
    """

    weighting: AbstractWeighting = LikelihoodWeighting()
    times: AbstractTimeSampling = UniformLogSNR()
    objective: AbstractObjective = Squared()
    condition_dropout: Number = 0.0
    masking: AbstractMasking | None = None

    def __check_init__(self):
        check_instance("Loss", "weighting", self.weighting, AbstractWeighting, "sgm.training.KarrasWeighting()")
        check_instance("Loss", "times", self.times, AbstractTimeSampling, "sgm.training.UniformLogSNR()")
        check_instance("Loss", "objective", self.objective, AbstractObjective, "sgm.training.Squared()")
        check_instance("Loss", "masking", self.masking, AbstractMasking | None, "sgm.training.UniformSubsets()")
        if not is_traced(self.condition_dropout) and not 0 <= self.condition_dropout < 1:
            raise ValueError(f"Loss: condition_dropout = {self.condition_dropout}; pass 0 <= condition_dropout < 1.")

    def check(self, sde):
        check_process("Loss", sde, "the loss sgm.CategoricalLoss()")
        weighting, times, objective = self.weighting, self.times, self.objective
        names = f"{type(sde).__name__}, {type(weighting).__name__} and {type(times).__name__}"
        of_likelihood = isinstance(weighting, LikelihoodWeighting)
        if isinstance(objective, SquaredVelocity) and of_likelihood and sde.ends_in_pure_noise:
            raise ValueError(
                f"SquaredVelocity: under LikelihoodWeighting the loss is infinite, since {type(sde).__name__} ends in "
                "pure noise; pass UniformWeighting(), the objective Squared(), or a process with an earlier end."
            )
        if isinstance(times, ChainSteps) and not isinstance(sde, DiscreteChain):
            raise ValueError(f"ChainSteps: they are a chain's own, but the loss is of {names}; pass a DiscreteChain.")
        bound = objective.bound if isinstance(objective, Hybrid) else objective
        given = sde, weighting, times
        if isinstance(bound, Bound) and not all(map(isinstance, given, (DiscreteChain, UniformWeighting, ChainSteps))):
            raise ValueError(
                f"{type(objective).__name__}: its terms are those of a chain's steps, but the loss is of {names}; pass "
                "a DiscreteChain, UniformWeighting() and ChainSteps()."
            )

    def perturb(self, sde, model, x0, key, cond=None, held_out=False):
        batch = check_examples("Loss", x0, model.shape)
        cond, cond_axis = flat_condition("Loss", model, cond, batch)
        n = math.prod(batch)
        check_at_least("Loss", "the number of examples", n)
        key_time, key_noise, key_drop, key_model = jr.split(key, 4)
        strata = (jr.uniform(key_time) + jnp.arange(n) / n) % 1
        t = jnp.clip(self.times.quantile(sde, strata), sde.t0, sde.t1)
        if cond_axis is None:
            cond = jax.tree.map(lambda part: jnp.broadcast_to(part, (n, *part.shape)), cond)
        dropout = 0.0 if held_out else self.condition_dropout
        if cond is not None and (is_traced(dropout) or dropout > 0):
            dropped = jr.bernoulli(key_drop, dropout, (n,))
            cond = dataclasses.replace(cond, dropped=dropped if cond.dropped is None else cond.dropped | dropped)
            flat_condition("Loss", model, cond, (n,))
        x0 = x0.reshape(n, *model.shape)
        masking = self.masking
        if masking is not None:
            masks = jax.vmap(lambda key: masking.mask(key, model.shape))(jr.split(jr.fold_in(key_drop, 1), n))
            # In the data's units, as all conditions are.
            observed = model.units.restore(jnp.where(masks, x0, jnp.nan))
            cond = dataclasses.replace(Condition() if cond is None else cond, observed=observed)
            flat_condition("Loss", model, cond, (n,))
        return Perturbed(
            t=t,
            levels=levels_at(sde, self.weighting, self.times, t),
            x0=x0,
            noise=normal(key_noise, (n, *model.shape), x0.dtype),
            cond=cond,
            key=None if held_out else jr.split(key_model, n),
        )

    def errors(self, sde, model, drawn):
        def error(example):
            (level, weight), x0, noise = example.levels, example.x0, example.noise
            missing = jnp.isnan(x0) if model.takes_missing else None
            if missing is not None:  # Such an entry is taken for 0 without noise.
                x0, noise = jnp.where(missing, 0, x0), jnp.where(missing, 0, noise)
            u = cos_of(level) * x0 + sin_of(level) * noise
            u = u if missing is None else jnp.where(missing, jnp.nan, u)
            estimate = estimate_of(model, level, u, example.cond, example.key)
            if missing is not None:
                estimate = estimate.known(level, u, jnp.where(missing, 0, jnp.nan).astype(u.dtype))
            return weight * self.objective.error(sde, level, x0, noise, estimate)

        return jax.vmap(error)(drawn)


def score_matching_loss(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    weighting: AbstractWeighting = UniformWeighting(),
    times: AbstractTimeSampling = UniformTime(),
    objective: AbstractObjective = Squared(),
    condition_dropout: Number = 0.0,
    masking: AbstractMasking | None = None,
) -> Float[Array, ""]:
    """The loss of `Loss(weighting, times, objective, condition_dropout, masking)`, by default that of DDPM.

    Arguments:
        sde: Process.
        model: Model.
        x: Clean examples, in the data's units, of shape `(*batch, *model.shape)`.
        key: Key of all randomness.
        cond: One condition for all examples, or one each.
        weighting: Weight of each time.
        times: How times are drawn.
        objective: Error at each time.
        condition_dropout: Share of examples that are given the network's null in place of their condition.
        masking: Which entries of each example are observed.

    Returns:
        The mean over the examples, a scalar.

    Example:
        >>> loss = sgm.score_matching_loss(sgm.VP(), model, x, jax.random.key(0))
    """
    return Loss(weighting, times, objective, condition_dropout, masking)(sde, model, x, key, cond)


def levels_at(sde: AbstractSDE, weighting: AbstractWeighting, times: AbstractTimeSampling, t: Times) -> Levels:
    """The noise level of each time and the weight of its error: an error depends on the process by nothing else."""
    last = jnp.asarray(sde.t1, t.dtype)
    # At pure noise the rate of the level is infinite.
    before = jnp.where(jnp.isinf(sde.level(last)), jnp.nextafter(last, jnp.zeros_like(last)), last)
    weighted = jnp.minimum(t, before)
    weight = weighting.weight(sde, weighted) / times.density(sde, weighted)
    return jnp.minimum(sde.level(t), LARGEST_LEVEL), weight
