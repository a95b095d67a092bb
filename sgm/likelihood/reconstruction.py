"""The density of clean data given their noisy counterparts at t0."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.checks import check_array, check_examples, check_finite
from sgm.model.base import AbstractModel, check_process_and_model, estimate_of
from sgm.nn.condition import Condition, flat_condition
from sgm.sde.base import AbstractSDE


def reconstruction(
    sde: AbstractSDE,
    model: AbstractModel,
    x0: Float[Array, "..."],
    x: Float[Array, "..."],
    cond: Condition | None = None,
) -> Float[Array, "*batch"]:
    """log p(x0 | x) - log q(x | x0), in nats, of clean data x0 and their noisy counterparts x at t0.

    The mean over x ~ q of `log_prob(sde, model, x) + reconstruction(sde, model, x0, x)` is a lower bound on log p(x0),
    the density of the data themselves. In standardised coordinates, with s = sigma/alpha at t0, q = N(alpha x0,
    sigma^2) and p = N(E[x0 | x], s^2), which is exact where the data's density is flat over a width s.

    Arguments:
        sde: Process.
        model: Model.
        x0: Clean examples, in the data's units, of shape `(*batch, *model.shape)`.
        x: Noisy examples at t0, of the same shape and units.
        cond: One condition for all examples, or one each.

    Returns:
        The difference for each example, in nats.

    Raises:
        ValueError: for x and x0 of different shapes, shapes that are not the model's, and entries that are not finite.

    Example:
        >>> mean, std = sde.marginal(sde.t0, x)
        >>> noisy = mean + std * jr.normal(key, x.shape)
        >>> log_p = sgm.log_prob(sde, model, noisy, trace=sgm.Exact())
        >>> bound = log_p + reconstruction(sde, model, x, noisy)

    Reference: Song et al. 2021 (arXiv:2101.09258).
    """
    check_process_and_model("reconstruction", sde, model)
    check_array("reconstruction", "x0", x0)
    batch = check_examples("reconstruction", x, model.shape)
    if x0.shape != x.shape:
        raise ValueError(f"reconstruction: x0 has shape {x0.shape}, but x has {x.shape}; pass them in pairs.")
    check_finite("reconstruction", x0, "x0")
    check_finite("reconstruction", x)
    cond, cond_axis = flat_condition("reconstruction", model, cond, batch)
    n = math.prod(batch)

    level = jnp.asarray(sde.level(sde.t0), jnp.result_type(float))

    def of_one(x0, x, cond):
        alpha, sigma = sde.alpha(sde.t0), sde.sigma(sde.t0)
        denoised = estimate_of(model, level, x / sde.rho(sde.t0), cond).denoised
        by_model = jnp.sum((x0 - denoised) ** 2) * (alpha / sigma) ** 2
        by_noise = jnp.sum((x - alpha * x0) ** 2) / sigma**2
        return x.size * jnp.log(alpha) + 0.5 * (by_noise - by_model)

    flat_x0, flat_x = (model.units.standardise(part).reshape(n, *model.shape) for part in (x0, x))
    return jax.vmap(of_one, in_axes=(0, 0, cond_axis))(flat_x0, flat_x, cond).reshape(batch)
