"""Uniform distributions over a box, without noise and under it.

Entries are independent. Of one, let U be uniform on [low, high], x0 = U + std noise', u = cos x0 + sin noise, so that
u = cos U + tau e with e ~ N(0, 1), tau^2 = cos^2 std^2 + sin^2. Given u, e is a standard normal that is truncated to an
interval. With U' the likeliest point of the box, r = U' - U, kappa = cos / tau and e' = (u - cos U') / tau,

    e = e' + kappa r        p(r | u) is proportional to exp(-kappa r (e' + kappa r / 2)) on [U' - high, U' - low]
    E[x0 | u] = U' - E[r | u] + cos std^2 / tau E[e | u]        E[noise | u] = sin / tau E[e | u]

The terms of E[e | u] are of one sign, and e' is zero where U' lies within the box. So nothing cancels, however far from
the box u is. (Where the noise is wider than the box and u within it, U' is the centre.) The moments of r are found by
Gauss-Legendre quadrature where the integrand is above exp(-24) of its largest value. It has 1e-8 of relative error at
most, and unlike differences of error functions derivatives as good.
"""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float

from sgm.checks import check_instance, is_traced
from sgm.model.analytic import AbstractAnalyticModel
from sgm.model.base import Estimate
from sgm.model.with_units import WithUnits
from sgm.nn.units import Units, check_units
from sgm.random import normal
from sgm.sde.level import cos_of, sin_of

_NODES, _WEIGHTS = (values / 2 for values in np.polynomial.legendre.leggauss(32))
_NODES = _NODES + 0.5
_CUT = 24.0


class Uniform(AbstractAnalyticModel):
    """The uniform distribution over a box, such as the prior of a simulator's parameters.

    Arguments:
        low: Lower ends, of the shape of an example: an array, or numbers of a vector.
        high: Upper ends, of the same shape.

    Raises:
        ValueError: for ends of different shapes, ends that are not finite, and where low < high does not hold.

    Example:
        >>> prior = Uniform((0.0, -1.0), (5.0, 1.0))
        >>> prior.log_prob(jnp.asarray([2.0, 0.5])).round(4)  # -log(10)
        Array(-2.3026, dtype=float32)
        >>> theta = prior.sample(key, 8)
    """

    low: Float[Array, "*shape"]
    high: Float[Array, "*shape"]

    def __init__(
        self,
        low: Float[Array | np.ndarray, "*shape"] | tuple[float, ...],
        high: Float[Array | np.ndarray, "*shape"] | tuple[float, ...],
    ):
        number = jnp.result_type(float)
        low, high = jnp.asarray(low, number), jnp.asarray(high, number)
        if low.shape != high.shape:
            raise ValueError(f"Uniform: low has shape {low.shape}, but high {high.shape}; pass ends of one shape.")
        if not is_traced((low, high)):
            if not np.all(np.isfinite(low) & np.isfinite(high)):
                raise ValueError(f"Uniform: low = {low} and high = {high} are not all finite; pass finite ends.")
            if not np.all(np.asarray(low) < np.asarray(high)):
                raise ValueError(f"Uniform: low = {low} is not below high = {high}; pass low < high for each entry.")
        self.low, self.high = low, high

    @property
    def shape(self):
        return self.low.shape

    def contains(self, x: Float[Array, "*shape"]) -> Bool[Array, ""]:
        """Whether one example lies in the box, its ends among it."""
        return jnp.all((self.low <= x) & (x <= self.high))

    def predict(self, level, u, cond=None, key=None):
        return NoisedUniform(self.low, self.high, jnp.zeros_like(self.low)).predict(level, u)

    def marginal(self, sde, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return NoisedUniform(alpha * self.low, alpha * self.high, jnp.full_like(self.low, sigma))

    def log_prob(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The log-density of one example, in nats: -inf outside of the box."""
        return jnp.where(self.contains(x), -jnp.sum(jnp.log(self.high - self.low)), -jnp.inf)

    def sample(self, key, n):
        return jr.uniform(key, (n, *self.shape), self.low.dtype, self.low, self.high)

    def in_units(self, units: Units) -> WithUnits:
        """The same distribution as a model in other units, such as `model.units` of a trained one beside it."""
        check_instance("Uniform.in_units", "units", units, Units, "model.units")
        check_units("Uniform.in_units", units, self.shape)
        return WithUnits(Uniform(units.standardise(self.low), units.standardise(self.high)), units)


class NoisedUniform(AbstractAnalyticModel):
    """The uniform distribution over a box plus Gaussian noise: what a process makes of `Uniform`.

    Arguments:
        low: Lower ends of the box, of the shape of an example.
        high: Upper ends of the box, of the same shape.
        std: Standard deviation of the noise of each entry, of the same shape, at least 0.

    Example:
        >>> noised = Uniform((0.0, -1.0), (5.0, 1.0)).marginal(sgm.VP(), jnp.asarray(0.3))  # a NoisedUniform
        >>> log_p = noised.log_prob(jnp.asarray([2.0, 0.5]))
    """

    low: Float[Array, "*shape"]
    high: Float[Array, "*shape"]
    std: Float[Array, "*shape"]

    def __init__(self, low: Float[Array, "*shape"], high: Float[Array, "*shape"], std: Float[Array, "*shape"]):
        self.low, self.high, self.std = low, high, std

    @property
    def shape(self):
        return self.low.shape

    def predict(self, level, u, cond=None, key=None):
        cos, sin = cos_of(level), sin_of(level)
        tau = jnp.sqrt(cos**2 * self.std**2 + sin**2)
        nearest, apart, _, r = self._moments(cos, tau, u)
        uniform, noise = nearest - r, apart + cos / tau * r
        return Estimate(
            denoised=uniform + cos * self.std**2 / tau * noise,
            noise=sin / tau * noise,
            velocity=cos * sin * (1 - self.std**2) / tau * noise - sin * uniform,
        )

    def marginal(self, sde, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return NoisedUniform(alpha * self.low, alpha * self.high, jnp.sqrt(alpha**2 * self.std**2 + sigma**2))

    def log_prob(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The log-density of one example, in nats, of noise that is not 0."""
        _, apart, mean, _ = self._moments(jnp.ones((), x.dtype), self.std, x)
        return jnp.sum(jnp.log(mean) - apart**2 / 2 - jnp.log(self.std * math.sqrt(2 * math.pi)))

    def sample(self, key, n):
        key_box, key_noise = jr.split(key)
        box = jr.uniform(key_box, (n, *self.shape), self.low.dtype, self.low, self.high)
        return box + self.std * normal(key_noise, box.shape, box.dtype)

    def _moments(self, cos, tau, u):
        """U', e', the mean over the box of p(r | u) as it stands above, and E[r | u], of each entry."""
        low, high, centre = cos * self.low, cos * self.high, (self.low + self.high) / 2
        # Within a box that the noise blurs, 1 / cos would cancel in derivatives.
        blurred = (low <= u) & (u <= high) & (high - low < tau)
        nearest = jnp.clip(u / jnp.maximum(cos, jnp.finfo(u.dtype).tiny), self.low, self.high)
        nearest = jnp.where(blurred, centre, nearest)
        apart = (u - jnp.where(blurred, cos * centre, jnp.clip(u, low, high))) / tau
        kappa, distance = cos / tau, jnp.abs(apart)
        reach = jax.lax.stop_gradient(2 * _CUT / (distance + jnp.sqrt(distance**2 + 2 * _CUT)) / kappa)
        first, last = jnp.maximum(nearest - self.high, -reach), jnp.minimum(nearest - self.low, reach)
        nodes, weights = jnp.asarray(_NODES, u.dtype), jnp.asarray(_WEIGHTS, u.dtype)
        r = first[..., None] + (last - first)[..., None] * nodes
        turns = kappa[..., None] * r
        masses = weights * jnp.exp(-turns * (apart[..., None] + turns / 2))
        mass, width = jnp.sum(masses, axis=-1), self.high - self.low
        share = jnp.where(width > 0, (last - first) / jnp.where(width > 0, width, 1), 1)  # Pure noise leaves a point.
        return nearest, apart, share * mass, jnp.sum(masses * r, axis=-1) / mass
