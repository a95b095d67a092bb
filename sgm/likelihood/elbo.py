"""The variational lower bound of a discrete chain on log p(x_0), term by term.

log p(x_0) >= E_q[log p(x_0 | x_1)] - sum over k = 2 ... N of KL(q(x_(k-1) | x_k, x_0) || p(x_(k-1) | x_k))
              - KL(q(x_N | x_0) || p(x_N))
"""

import dataclasses
import math
from typing import Literal, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from sgm.checks import check_at_least, check_count, check_instance, trace_floats
from sgm.likelihood.last_step import AbstractReconstruction, Flat
from sgm.likelihood.prepare import prepare
from sgm.likelihood.prior_mismatch import prior_mismatch
from sgm.model.base import AbstractModel, check_process_and_model, estimate_of
from sgm.model.kernel import AbstractVariance, FixedSmall, transition_kl
from sgm.nn.condition import Condition
from sgm.parallel.devices import replicate
from sgm.parallel.spread import spread
from sgm.random import normal
from sgm.sde.chain import DiscreteChain
from sgm.sde.level import cos_of, sin_of


class ELBO(eqx.Module):
    """What `elbo(..., full=True)` returns, in nats, each with the batch axes of x.

    - `value`: reconstruction - diffusion - prior.
    - `stderr`: the standard error of `value` from the draws, known with `draws - 1` degrees of freedom.
    - `reconstruction`: log p(x_0 | x_1).
    - `diffusion`: the sum of the divergences of the steps between.
    - `prior`: the divergence at x_N.
    - `transitions`: the divergence of each step k = 2 ... N along a last axis; None where steps were drawn.
    """

    value: Float[Array, "*batch"]
    stderr: Float[Array, "*batch"]
    reconstruction: Float[Array, "*batch"]
    diffusion: Float[Array, "*batch"]
    prior: Float[Array, "*batch"]
    transitions: Float[Array, "*batch transitions"] | None


@overload
def elbo(
    chain: DiscreteChain,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    variance: AbstractVariance = FixedSmall(),
    reconstruction: AbstractReconstruction = Flat(),
    steps: int | None = None,
    draws: int = 2,
    full: Literal[False] = False,
    mesh: Mesh | None = None,
) -> Array: ...
@overload
def elbo(
    chain: DiscreteChain,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    variance: AbstractVariance = FixedSmall(),
    reconstruction: AbstractReconstruction = Flat(),
    steps: int | None = None,
    draws: int = 2,
    full: Literal[True],
    mesh: Mesh | None = None,
) -> ELBO: ...
@overload
def elbo(
    chain: DiscreteChain,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    variance: AbstractVariance = FixedSmall(),
    reconstruction: AbstractReconstruction = Flat(),
    steps: int | None = None,
    draws: int = 2,
    full: bool,
    mesh: Mesh | None = None,
) -> Array | ELBO: ...
def elbo(
    chain: DiscreteChain,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    variance: AbstractVariance = FixedSmall(),
    reconstruction: AbstractReconstruction = Flat(),
    steps: int | None = None,
    draws: int = 2,
    full: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "*batch"] | ELBO:
    """An unbiased estimate of the lower bound on log p(x) at k = 0, in nats, of one example or a batch.

    Arguments:
        chain: Discrete chain.
        model: Model.
        x: Examples at k = 0, in the data's units, of shape `(*batch, *model.shape)`.
        key: Key of all randomness.
        cond: One condition for all examples, or one each.
        variance: Variance of the reverse transitions, as in `Ancestral`.
        reconstruction: Last step: `Flat()` for a density, `DiscretisedGaussian(count)` for a probability of levels.
        steps: Number of the N - 1 transitions that each draw visits, one at random in each of as many equal parts of
            the chain; None for all of them.
        draws: Number of independent estimates, of which the mean is returned; two or more for a standard error.
        full: Whether an `ELBO` is returned, with its terms and its standard error.
        mesh: Devices over which a batch is spread, as in `sgm.log_prob`.

    Returns:
        The bound of each example, in nats, for a density in the data's units; or an `ELBO`.

    Raises:
        ValueError: for a process that is no chain, entries of x that are not finite, and examples or a condition of
            other shapes than the model's.

    Example:
        >>> bound = sgm.elbo(chain, model, x, jax.random.key(0), steps=10)

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 2.4); Ho et al. 2020 (arXiv:2006.11239, eq. 5).
    """
    check_process_and_model("elbo", chain, model)
    check_instance("elbo", "variance", variance, AbstractVariance, "sgm.model.FixedLarge()")
    check_instance("elbo", "reconstruction", reconstruction, AbstractReconstruction, "sgm.likelihood.Flat()")
    if not isinstance(chain, DiscreteChain):
        raise ValueError(
            f"elbo: the process is a {type(chain).__name__}; pass a DiscreteChain, for a continuous process "
            "DiscreteChain.at_times(sde, times)."
        )
    check_count("elbo", "draws", draws)
    if steps is not None and not (isinstance(steps, int) and 1 <= steps <= chain.steps - 1):
        raise ValueError(
            f"elbo: steps = {steps}; pass an integer, 1 <= steps <= {chain.steps - 1}, or None for all transitions."
        )
    units = model.units
    sde, model, x, keys, own, cond, mesh, batch = prepare("elbo", chain, model, x, key, cond, mesh)
    shared = replicate((sde, model, cond, *trace_floats((variance, reconstruction))), mesh)
    result = _elbo(shared, (x, keys, own), steps, draws, mesh)
    result = as_asked(result, reconstruction.is_density, units.log_volume(model.shape), batch)
    return result if full else result.value


def as_asked(result: ELBO, is_density: bool, log_volume: Float[ArrayLike, ""], batch: tuple[int, ...]) -> ELBO:
    """The bounds of n standardised examples, with the batch axes of the call, densities in the data's units."""
    if is_density:
        value, last = result.value - log_volume, result.reconstruction - log_volume
        result = dataclasses.replace(result, value=value, reconstruction=last)
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), result)


def bits_over_gaussian(log_prob: Float[ArrayLike, "*batch"], dim: int) -> Float[Array, "*batch"]:
    """How far a bound is above that of N(0, I): (log_prob / dim + log(2 pi e) / 2) / log 2.

    It holds on average over data of variance 1. The code of 2015 reports it per pixel, that is times the colours.

    Arguments:
        log_prob: Bound on log p(x), in nats.
        dim: Number of entries of an example.

    Returns:
        The difference, in bits per dimension.

    Raises:
        ValueError: for `dim` below 1.

    Example:
        >>> entropy = 0.5 * np.log(2 * np.pi * np.e)  # of N(0, 1)
        >>> round(float(bits_over_gaussian(3072 * (np.log(4) - entropy), 3072)), 3)
        2.0

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, table 1).
    """
    check_at_least("bits_over_gaussian", "dim", dim)
    return (jnp.asarray(log_prob) / dim + 0.5 * math.log(2 * math.pi * math.e)) / math.log(2)


@eqx.filter_jit
def _elbo(shared, each, steps, draws, mesh):
    def of_batch(shared, each):
        return jax.vmap(lambda each: _elbo_one(shared, each, steps, draws))(each)

    return spread(of_batch, shared, each, mesh)


def _elbo_one(shared, each, steps, draws):
    chain, model, cond, variance, reconstruction = shared
    x0, key, own = each
    model, cond = own.join(model, cond)
    count = chain.steps - 1

    def at(k, key):
        """The level and the noise of x_k, and the estimate there."""
        noise, level = normal(key, x0.shape, x0.dtype), chain.level(k)
        return level, noise, estimate_of(model, level, cos_of(level) * x0 + sin_of(level) * noise, cond)

    def transition(k, key):
        t, _, estimate = at(k, key)
        s = chain.level(k - 1)
        return transition_kl(s, t, x0, estimate, variance.log_variance(s, t, estimate))

    def draw(key):
        key_last, key_steps, key_noise = jr.split(key, 3)
        level, noise, estimate = at(jnp.asarray(1.0), key_last)
        log_variance = variance.log_variance(level, chain.level(jnp.asarray(2.0)), estimate)
        last = reconstruction.log_prob(x0, noise, level, estimate, log_variance)
        if steps is None:
            ks = jnp.arange(2, count + 2)
        else:
            strata = (jnp.arange(steps, dtype=x0.dtype) + jr.uniform(key_steps, (steps,), x0.dtype)) / steps
            ks = 2 + jnp.minimum((strata * count).astype(int), count - 1)
        keys = jr.split(key_noise, len(ks))
        kls = jax.lax.map(lambda each: transition(each[0].astype(x0.dtype), each[1]), (ks, keys))
        return last, kls * (count / len(ks))

    lasts, transitions = jax.vmap(draw)(jr.split(key, draws))
    sums, prior = jnp.sum(transitions, axis=1), prior_mismatch(chain, x0[None])[0]
    values = jax.lax.stop_gradient(lasts - sums)
    return ELBO(
        value=jnp.mean(lasts - sums) - prior,
        stderr=jnp.std(values, ddof=1) / draws**0.5,
        reconstruction=jnp.mean(lasts),
        diffusion=jnp.mean(sums),
        prior=prior,
        transitions=jnp.mean(transitions, axis=0) if steps is None else None,
    )
