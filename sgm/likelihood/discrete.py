"""Probabilities of discrete data under a density: levels 0 ... count - 1, each a bin of [low, high).

log P(level) = log integral of p over the bin >= E_q[log p(x) - log q(x | level)]
"""

from abc import abstractmethod
from typing import Literal, overload

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.stats import norm
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from sgm.checks import check_array, check_count, check_instance, check_key, is_traced
from sgm.likelihood.accuracy import warn_of_missed
from sgm.likelihood.dequantise import check_levels, dequantise
from sgm.likelihood.last_step import AbstractReconstruction, DiscretisedGaussian, Flat
from sgm.likelihood.log_prob import Density, LogProb, log_prob
from sgm.likelihood.trace import AbstractTrace, Hutchinson
from sgm.model.base import AbstractModel, check_process_and_model
from sgm.model.with_units import WithUnits
from sgm.nn.condition import Condition, flat_condition
from sgm.nn.units import Units
from sgm.random import truncated_normal
from sgm.sde.base import AbstractSDE
from sgm.types import Number


class AbstractDequantisation(eqx.Module):
    """A density q(x | level) on the bin of each level."""

    @abstractmethod
    def draw(
        self, sde: AbstractSDE, levels: Integer[Array, "..."], count: int, key: PRNGKeyArray, low: Number, high: Number
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """x at t0 and log q(x | level), entry by entry."""

    @abstractmethod
    def training(
        self, levels: Integer[Array, "..."], count: int, key: PRNGKeyArray, low: Number = -1.0, high: Number = 1.0
    ) -> Float[Array, "..."]:
        """Clean data x0 for a model whose density at t0 is to be evaluated so."""

    @abstractmethod
    def reconstruction(self, count: int, low: Number = -1.0, high: Number = 1.0) -> AbstractReconstruction:
        """The last step with which a bound on log p of the data of `training`, per bin, is one on log P(levels)."""


class UniformDequantisation(AbstractDequantisation):
    """x ~ U(bin).

    Example:
        >>> x0 = UniformDequantisation().training(jnp.asarray([0, 3]), 4, key)  # in [-1, -0.5) and [0.5, 1)

    Reference: Theis et al. 2016 (arXiv:1511.01844, section 3.1).
    """

    def draw(self, sde, levels, count, key, low, high):
        x = dequantise(levels, count, key, low, high)
        return x, jnp.full_like(x, -jnp.log(jnp.asarray((high - low) / count)))

    def training(self, levels, count, key, low=-1.0, high=1.0):
        return dequantise(levels, count, key, low, high)

    def reconstruction(self, count, low=-1.0, high=1.0):
        return Flat()


class TruncatedNormalDequantisation(AbstractDequantisation):
    """x = alpha(t0) middle of the bin + sigma(t0) noise, with normal noise truncated at the ends of the bin.

    A model that is trained on the middles of the bins meets just this at t0, but for the truncation. So the process
    should start where the noise fills a bin: sigma(t0) / alpha(t0) of about a sixth of its width or somewhat more.

    Example:
        >>> rule = TruncatedNormalDequantisation()
        >>> rule.training(jnp.asarray([0, 1, 2, 3]), 4, key).tolist()  # the middles of the bins
        [-0.75, -0.25, 0.25, 0.75]
        >>> experiment = sgm.Experiment(Digits(), partial(MLP, width=64), dequantisation=rule)

    Reference: Zheng et al. 2023 (i-DODE, arXiv:2305.03935).
    """

    def draw(self, sde, levels, count, key, low, high):
        alpha, sigma = sde.alpha(sde.t0), sde.sigma(sde.t0)
        reach = alpha / sigma * (high - low) / (2 * count)
        noise = truncated_normal(key, reach, levels.shape)
        x = alpha * self.training(levels, count, key, low, high) + sigma * noise
        return x, norm.logpdf(noise) - jnp.log(jax.scipy.special.erf(reach / np.sqrt(2))) - jnp.log(sigma)

    def training(self, levels, count, key, low=-1.0, high=1.0):
        return low + (high - low) / count * (levels.astype(float) + 0.5)

    def reconstruction(self, count, low=-1.0, high=1.0):
        return DiscretisedGaussian(count, low, high)


class DiscreteLogProb(eqx.Module):
    """What `discrete_log_prob(..., full=True)` returns, each with the batch axes of the levels.

    - `value`: the bound on log P(levels) in nats.
    - `stderr`: its standard error from the trace's probes and, for two draws of x or more, from how p/q varies among
      them, to first order: of few draws of coarse levels it may be half of what it should. Of a single draw that is
      not known: then it is the error of that draw's p/q alone.
    - `converged`: whether every draw is known to the `accuracy`; None unless one was asked for.
    - `draws`: the `LogProb` of each draw of x, along a leading axis.

    Example:
        >>> levels = jnp.asarray([[0, 3], [1, 2]])
        >>> result = discrete_log_prob(sde, model, levels, key, count=4, samples=8, trace=sgm.Exact(), full=True)
        >>> result.value.shape, result.draws.value.shape
        ((2,), (8, 2))
    """

    value: Float[Array, "*batch"]
    stderr: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"] | None
    draws: LogProb


@overload
def discrete_log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    levels: Integer[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    count: int = 256,
    low: Number | None = None,
    high: Number | None = None,
    dequantisation: AbstractDequantisation = UniformDequantisation(),
    samples: int = 1,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[False] = False,
    mesh: Mesh | None = None,
) -> Array: ...
@overload
def discrete_log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    levels: Integer[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    count: int = 256,
    low: Number | None = None,
    high: Number | None = None,
    dequantisation: AbstractDequantisation = UniformDequantisation(),
    samples: int = 1,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[True],
    mesh: Mesh | None = None,
) -> DiscreteLogProb: ...
@overload
def discrete_log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    levels: Integer[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    count: int = 256,
    low: Number | None = None,
    high: Number | None = None,
    dequantisation: AbstractDequantisation = UniformDequantisation(),
    samples: int = 1,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: bool,
    mesh: Mesh | None = None,
) -> Array | DiscreteLogProb: ...
def discrete_log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    levels: Integer[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    count: int = 256,
    low: Number | None = None,
    high: Number | None = None,
    dequantisation: AbstractDequantisation = UniformDequantisation(),
    samples: int = 1,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "*batch"] | DiscreteLogProb:
    """Estimate log P(levels): the log of the mean of p(x) / q(x | levels) over draws of x.

    On average it is a lower bound, which rises with `samples` towards log P(levels). The noise of random probes enters
    the mean of more than one draw as its exponential, which is biased upwards by up to half its variance: take
    `trace=Exact()` there.

    Arguments:
        sde: Process.
        model: Model.
        levels: Integers from 0 to count - 1, of shape `(*batch, *model.shape)`.
        key: Key of all randomness.
        count: Number of levels.
        low: Lower end of the range that the levels fill, in the data's units; by default the levels fill [-1, 1) of
            standardised data, as under `Units.of_levels(count)`.
        high: Upper end of that range.
        dequantisation: Distribution q of x given its levels.
        samples: Number of draws of x.
        cond: One condition for all examples, or one each.
        trace, solver, controller, accuracy, prior, adjoint, mesh: As those of `sgm.log_prob`.
        full: Whether a `DiscreteLogProb` is returned, with its standard error.

    Returns:
        The bound of each example, in nats; or a `DiscreteLogProb`.

    Raises:
        ValueError: for levels that are no integers from 0 to count - 1, examples or a condition of other shapes than
            the model's, and units that are not those of so many levels.

    Example:
        >>> levels = jnp.asarray([[0, 3], [1, 2]])
        >>> log_p = sgm.likelihood.discrete_log_prob(sgm.VP(), model, levels, jax.random.key(0), count=4)
        >>> bits = sgm.bits_per_dim(log_p, 2, levels=None)

    Reference: Burda et al. 2016 (arXiv:1509.00519).
    """
    call = "discrete_log_prob"
    check_process_and_model(call, sde, model)
    check_array(call, "levels", levels)
    check_instance(
        call, "dequantisation", dequantisation, AbstractDequantisation, "sgm.likelihood.UniformDequantisation()"
    )
    check_count(call, "samples", samples)
    if key is None:
        raise ValueError("discrete_log_prob: key is None, but dequantisation is random; pass key=jax.random.key(seed).")
    check_key(call, key)
    levels = _check_levels(levels, count, model.shape)
    key_data, key_trace = jr.split(key)
    repeated = jnp.broadcast_to(levels, (samples, *levels.shape))
    x, log_q = dequantisation.draw(sde, repeated, count, key_data, *_ends(model.units, count, low, high))
    batch = levels.shape[: levels.ndim - len(model.shape)]
    _, cond_axis = flat_condition("discrete_log_prob", model, cond, batch)
    if cond_axis == 0:
        cond = jax.tree.map(lambda part: jnp.broadcast_to(part, (samples, *part.shape)), cond)
    draws = log_prob(
        sde,
        WithUnits(model, Units()),  # The levels' probability does not depend on units.
        x,
        key_trace,
        cond=cond,
        trace=trace,
        solver=solver,
        controller=controller,
        accuracy=accuracy,
        prior=prior,
        adjoint=adjoint,
        full=True,
        mesh=mesh,
    )
    entries = tuple(range(draws.value.ndim, x.ndim))
    log_weights = draws.value - jnp.sum(log_q, axis=entries)
    value = jax.nn.logsumexp(log_weights, axis=0) - np.log(samples)
    shares = jax.nn.softmax(log_weights, axis=0)
    by_draws = jnp.sum((shares - 1 / samples) ** 2, axis=0) * samples / max(1, samples - 1)
    stderr = jnp.sqrt(jnp.sum((shares * draws.stderr) ** 2, axis=0) + by_draws)
    converged = None if draws.converged is None else jnp.all(draws.converged, axis=0)
    if not full:
        warn_of_missed("discrete_log_prob", converged, accuracy)
    return DiscreteLogProb(value, stderr, converged, draws) if full else value


def _ends(units, count, low, high):
    """The ends of the range of all levels in standardised coordinates; by default they are -1 and 1."""
    known = not is_traced(units) and not units.is_identity
    if low is None and high is None:
        if known and not eqx.tree_equal(units, Units.of_levels(count)):
            raise ValueError(
                f"discrete_log_prob: the units of the model, {units}, are not those of {count} grey levels; pass their "
                "count, or low and high, the ends of the range that the levels fill in the data's units."
            )
        return -1.0, 1.0
    if low is None or high is None:
        raise ValueError(f"discrete_log_prob: low = {low}, high = {high}; pass both, or neither.")
    if not is_traced((low, high)) and not low < high:
        raise ValueError(f"discrete_log_prob: low = {low}, high = {high}; pass low < high.")
    if units.std.value.ndim:
        raise ValueError("discrete_log_prob: low and high are given, but the units differ by channel; leave them out.")
    return tuple(units.standardise(jnp.asarray(end)) for end in (low, high))


def _check_levels(levels, count, shape):
    if levels.shape[max(0, levels.ndim - len(shape)) :] != shape or levels.size == 0:
        raise ValueError(
            f"discrete_log_prob: levels have shape {levels.shape}, but the model is of examples of shape {shape}; "
            "pass one example or more, with batch axes in front of that shape."
        )
    check_levels("discrete_log_prob", levels, count, -1.0, 1.0)
    return jnp.asarray(levels)
