"""How a `LearnedLogSNR` is trained: its ends on the bound, its interior on the variance of the bound's estimate.

With error = weight(t) |estimate.noise - noise|^2 / D under `LikelihoodWeighting`, t uniform and l = -log_snr / 2, the
bound of continuous time on -log p(x0) is, in nats a dimension,

    E[error] + KL(p(x_t1 | x0) || prior) / D + l(t0) + log(2 pi e) / 2

where x0 is left to N(x_t0 / alpha, (sigma/alpha)^2 I). The interior of the schedule does not change it, but changes
E[error^2], and so the variance of an estimate from one t an example.

Source: Kingma et al. 2021 (VDM, arXiv:2107.00630, section 5 and appendix I.2).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sgm.likelihood import prior_mismatch
from sgm.sde import VP, AbstractSDE, LearnedLogSNR
from sgm.training.loss import Levels, Times, levels_at
from sgm.training.objective import AbstractObjective, Squared
from sgm.training.times import AbstractTimeSampling, UniformTime
from sgm.training.weightings import AbstractWeighting, LikelihoodWeighting


def learned_part(sde: AbstractSDE) -> PyTree:
    """The process with None in the place of every leaf that is not an array of a `LearnedLogSNR`."""

    def is_learned(node):
        return isinstance(node, LearnedLogSNR)

    return eqx.filter(eqx.filter(sde, is_learned, is_leaf=is_learned), eqx.is_inexact_array)


def has_learned_part(sde: AbstractSDE) -> bool:
    """Whether the process has anything to train."""
    return bool(jax.tree.leaves(learned_part(sde)))


def check_trains_schedule(
    sde: AbstractSDE, weighting: AbstractWeighting, times: AbstractTimeSampling, objective: AbstractObjective
) -> None:
    """Raise if a process with something to train meets a loss that is not its bound, or does not depend on it."""
    if not has_learned_part(sde):
        return
    if not (isinstance(sde, VP) and 0 <= sde.t0 <= 1e-3 and sde.t1 == 1):
        raise ValueError(
            f"LearnedLogSNR: its ends are those of a VP on [0, 1], but the process is {type(sde).__name__} on "
            f"[{sde.t0}, {sde.t1}]; pass a VP with t0 of at most 1e-3 and t1 = 1."
        )
    given = weighting, times, objective
    if not all(map(isinstance, given, (LikelihoodWeighting, UniformTime, Squared))):
        names = ", ".join(type(part).__name__ for part in given)
        raise ValueError(
            f"LearnedLogSNR: it is trained on the bound at uniform times, but the loss is of {names}; pass "
            "LikelihoodWeighting, UniformTime and Squared, or a fixed schedule."
        )


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
