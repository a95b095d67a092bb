"""The variational lower bound on log p(x0) of a process in continuous time.

log p(x0) >= E[log p(x0 | x_t0)] - integral of E|noise - E[noise | u]|^2 dl - KL(q(x_t1 | x0) || p(x_t1))

The integral runs over the noise level l from t0 to t1. It is that of a chain's divergences as its steps become many.
"""

import math
from typing import Literal, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_count, check_instance, trace_floats
from sgm.likelihood.elbo import ELBO, as_asked
from sgm.likelihood.last_step import AbstractReconstruction, Flat
from sgm.likelihood.prepare import prepare
from sgm.likelihood.prior_mismatch import prior_mismatch
from sgm.model.base import AbstractModel, estimate_of
from sgm.nn.condition import Condition
from sgm.parallel.devices import replicate
from sgm.parallel.spread import spread
from sgm.random import normal
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL, cos_of, sin_of


@overload
def continuous_elbo(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    reconstruction: AbstractReconstruction = Flat(),
    noise_levels: int = 64,
    draws: int = 2,
    full: Literal[False] = False,
    mesh: Mesh | None = None,
) -> Array: ...
@overload
def continuous_elbo(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    reconstruction: AbstractReconstruction = Flat(),
    noise_levels: int = 64,
    draws: int = 2,
    full: Literal[True],
    mesh: Mesh | None = None,
) -> ELBO: ...
@overload
def continuous_elbo(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    reconstruction: AbstractReconstruction = Flat(),
    noise_levels: int = 64,
    draws: int = 2,
    full: bool,
    mesh: Mesh | None = None,
) -> Array | ELBO: ...
def continuous_elbo(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    reconstruction: AbstractReconstruction = Flat(),
    noise_levels: int = 64,
    draws: int = 2,
    full: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "*batch"] | ELBO:
    """Estimate the lower bound on log p(x0) of any process, without bias, in nats.

    It needs no solve: each example costs `draws * (noise_levels + 1)` evaluations of the model. Of an exact model the
    mean of the estimate is log p(x0), up to what the prior at t1 and the step from t0 to the data lose.

    Arguments:
        sde: Process.
        model: Model.
        x: Clean examples, in the data's units, of shape `(*batch, *model.shape)`.
        key: Key of all randomness.
        cond: One condition for all examples, or one each.
        reconstruction: Step from t0 to the data: `Flat()` for a density, `DiscretisedGaussian(count)` for a probability
            of levels, whose variance is then that of the noise at t0.
        noise_levels: Number of noise levels that each draw visits, one at random in each of as many parts of the
            process.
        draws: Number of independent estimates, of which the mean is returned; two or more for a standard error.
        full: Whether an `ELBO` is returned, with its terms and its standard error.
        mesh: Devices over which a batch is spread, as in `sgm.log_prob`.

    Returns:
        The bound of each example, in nats, for a density in the data's units; or an `ELBO`.

    Raises:
        ValueError: for entries of x that are not finite, and examples or a condition of other shapes than the model's.

    Example:
        >>> bound = sgm.continuous_elbo(sgm.VP(), model, x, jax.random.key(0), full=True)
        >>> low, high = bound.value - 2 * bound.stderr, bound.value + 2 * bound.stderr

    Reference: Kingma et al. 2021 (arXiv:2107.00630, eq. 15); Song et al. 2021 (arXiv:2101.09258).
    """
    check_instance("continuous_elbo", "reconstruction", reconstruction, AbstractReconstruction, "sgm.likelihood.Flat()")
    check_count("continuous_elbo", "noise_levels", noise_levels)
    check_count("continuous_elbo", "draws", draws)
    sde, model, x, keys, own, cond, mesh, batch = prepare("continuous_elbo", sde, model, x, key, cond, mesh)
    everything = sde, model, cond, replicate(trace_floats(reconstruction), mesh)
    result = _continuous_elbo(everything, (x, keys, own), noise_levels, draws, mesh)
    result = as_asked(result, reconstruction.is_density, model.units.log_volume(model.shape), batch)
    return result if full else result.value


@eqx.filter_jit
def _continuous_elbo(shared, each, levels, draws, mesh):
    def of_batch(shared, each):
        return jax.vmap(lambda each: _of_one(shared, each, levels, draws))(each)

    return spread(of_batch, shared, each, mesh)


def _of_one(shared, each, levels, draws):
    sde, model, cond, reconstruction = shared
    x0, key, own = each
    model, cond = own.join(model, cond)
    low, high = (jnp.asarray(sde.level(t), x0.dtype) for t in (sde.t0, sde.t1))
    # Even in softplus(-l): in l where the data are seen, and in exp(-l) where noise hides them.
    first, last = jax.nn.softplus(-low), jax.nn.softplus(-jnp.minimum(high, LARGEST_LEVEL))

    def at(level, key):
        noise = normal(key, x0.shape, x0.dtype)
        return noise, estimate_of(model, level, cos_of(level) * x0 + sin_of(level) * noise, cond)

    def integrand(share, key):
        place = first + share * (last - first)
        level = -_inverse_softplus(place)
        noise, estimate = at(level, key)
        # noise - E[noise | u] = cos (velocity - E[velocity | u]), which has digits at both ends.
        cos, sin = cos_of(level), sin_of(level)
        error = cos * (cos * noise - sin * x0 - estimate.velocity)
        # That of the model of N(0, I) has a mean that is known. Its excess is most of what the estimate would vary by.
        excess = cos**3 * (cos * (noise**2 - 1) - 2 * sin * x0 * noise)
        return jnp.sum(error**2 - excess) * (first - last) / jax.nn.sigmoid(-level)

    def draw(key):
        key_last, key_levels, key_noise = jr.split(key, 3)
        noise, estimate = at(low, key_last)
        reconstructed = reconstruction.log_prob(x0, noise, low, estimate, jnp.full_like(x0, 2 * low))
        shares = (jnp.arange(levels, dtype=x0.dtype) + jr.uniform(key_levels, (levels,), x0.dtype)) / levels
        values = jax.lax.map(lambda each: integrand(*each), (shares, jr.split(key_noise, levels)))
        return reconstructed, jnp.mean(values)

    lasts, integrals = jax.vmap(draw)(jr.split(key, draws))
    prior = prior_mismatch(sde, x0[None])[0]
    values = jax.lax.stop_gradient(lasts - integrals)
    return ELBO(
        value=jnp.mean(lasts - integrals) - prior,
        stderr=jnp.std(values, ddof=1) / math.sqrt(draws),
        reconstruction=jnp.mean(lasts),
        diffusion=jnp.mean(integrals),
        prior=prior,
        transitions=None,
    )


def _inverse_softplus(value):
    return value + jnp.log(-jnp.expm1(-value))
