"""Models whose estimate, density and samples are known in closed form under every process: the truth for tests.

With c = cos(theta), s = sin(theta) and data x0 ~ N(m, C), the path u is N(c m, c^2 C + s^2 I), and with the residual
r = (c^2 C + s^2 I)^-1 (u - c m)

    E[x0 | u] = m + c C r        E[noise | u] = s r        E[velocity | u] = c s (I - C) r - s m
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, Estimate
from sgm.model.with_units import WithUnits
from sgm.nn.units import Units, check_units
from sgm.random import normal
from sgm.sde.base import AbstractSDE
from sgm.sde.level import cos_of, sin_of


class AbstractAnalyticModel(AbstractModel):
    """A distribution that stays in closed form under noise."""

    @abstractmethod
    def marginal(self, sde: AbstractSDE, t: Float[Array, ""] | float) -> "AbstractAnalyticModel":
        """The distribution of x_t = alpha(t) x0 + sigma(t) noise."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n *shape"]:
        """`n` independent draws."""


class Gaussian(AbstractAnalyticModel):
    """The Gaussian N(mean, cov).

    Arguments:
        mean: Mean, of the shape of an example.
        cov: Covariance of the D entries of an example in row-major order, of shape (D, D).

    Example:
        >>> model = Gaussian(jnp.zeros(2), jnp.asarray([[1.0, 0.8], [0.8, 1.0]]))
        >>> model.log_prob(jnp.zeros(2)).round(3)
        Array(-1.327, dtype=float32)
        >>> x = model.sample(key, 8)  # exact; sgm.sample(sde, model, jr.key(1), 8) draws by the reverse process
    """

    mean: Float[Array, "*shape"]
    cov: Float[Array, "D D"]
    eigenvalues: Float[Array, " D"]
    eigenvectors: Float[Array, "D D"]

    def __init__(self, mean: Float[Array, "*shape"], cov: Float[Array, "D D"]):
        self.mean, self.cov = mean, cov
        eigenvalues, self.eigenvectors = jnp.linalg.eigh(cov)
        self.eigenvalues = jnp.maximum(eigenvalues, 0)  # Rounding may leave those of a singular matrix below.

    @property
    def shape(self):
        return self.mean.shape

    def predict(self, level, u, cond=None, key=None):
        cos, sin = cos_of(level), sin_of(level)
        residual = self._project(u - cos * self.mean) / (cos**2 * self.eigenvalues + sin**2)
        return Estimate(
            denoised=self.mean + self._embed(cos * self.eigenvalues * residual),
            noise=self._embed(sin * residual),
            velocity=self._embed(cos * sin * (1 - self.eigenvalues) * residual) - sin * self.mean,
        )

    def marginal(self, sde, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        cov = alpha**2 * self.cov + sigma**2 * jnp.eye(len(self.cov), dtype=self.cov.dtype)
        moments = (alpha * self.mean, cov, alpha**2 * self.eigenvalues + sigma**2)
        return eqx.tree_at(lambda gaussian: (gaussian.mean, gaussian.cov, gaussian.eigenvalues), self, moments)

    def log_prob(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The log-density of one example, in nats."""
        standardised = self._project(x - self.mean) ** 2 / self.eigenvalues
        return -0.5 * jnp.sum(standardised + jnp.log(2 * jnp.pi * self.eigenvalues))

    def sample(self, key, n):
        noise = normal(key, (n, self.mean.size), self.mean.dtype)
        return self.mean + jax.vmap(self._embed)(jnp.sqrt(self.eigenvalues) * noise)

    def in_units(self, units: Units) -> WithUnits:
        """The same distribution as a model in other units, such as `model.units` of a trained one beside it."""
        check_instance("Gaussian.in_units", "units", units, Units, "model.units")
        check_units("Gaussian.in_units", units, self.shape)
        std = jnp.broadcast_to(units.std.value, self.shape).reshape(-1)
        return WithUnits(Gaussian(units.standardise(self.mean), self.cov / std / std[:, None]), units)

    def _project(self, x):
        return self.eigenvectors.T @ x.reshape(-1)

    def _embed(self, coefficients):
        return (self.eigenvectors @ coefficients).reshape(self.mean.shape)


class GaussianMixture(AbstractAnalyticModel):
    """A mixture of round Gaussians, sum_k weights_k N(means_k, stds_k^2 I).

    Arguments:
        means: Means, of shape (K, *shape).
        stds: Standard deviations, of shape (K,).
        weights: Weights, of shape (K,), whose sum is 1.

    Raises:
        ValueError: for weights that do not sum to 1.

    Example:
        >>> model = GaussianMixture(jnp.asarray([[-1.0], [1.0]]), jnp.asarray([0.1, 0.1]), jnp.asarray([0.3, 0.7]))
        >>> x0 = model.denoise(sgm.VE(), 0.6, jnp.zeros(1))  # where the noise has a standard deviation of 1
        >>> round(float(x0[0]), 3)
        0.396
    """

    means: Float[Array, "K *shape"]
    stds: Float[Array, " K"]
    weights: Float[Array, " K"]

    def __init__(self, means: Float[Array, "K *shape"], stds: Float[Array, " K"], weights: Float[Array, " K"]):
        if not isinstance(weights, Tracer) and abs(float(weights.sum()) - 1) > 1e-3:
            raise ValueError(f"GaussianMixture: the weights sum to {float(weights.sum())}; pass weights that sum to 1.")
        self.means, self.stds, self.weights = means, stds, weights

    @property
    def shape(self):
        return self.means.shape[1:]

    def predict(self, level, u, cond=None, key=None):
        cos, sin = cos_of(level), sin_of(level)
        offsets = u - cos * self.means
        variances = cos**2 * self.stds**2 + sin**2
        posterior = jax.nn.softmax(_log_components(offsets, variances, self.weights))

        def average(coefficients, vectors):
            return jnp.tensordot(posterior * coefficients, vectors, axes=1)

        mean = average(1.0, self.means)
        return Estimate(
            denoised=mean + average(cos * self.stds**2 / variances, offsets),
            noise=average(sin / variances, offsets),
            velocity=average(cos * sin * (1 - self.stds**2) / variances, offsets) - sin * mean,
        )

    def marginal(self, sde, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return GaussianMixture(alpha * self.means, jnp.sqrt(alpha**2 * self.stds**2 + sigma**2), self.weights)

    def log_prob(self, x: Float[Array, "*shape"]) -> Float[Array, ""]:
        """The log-density of one example, in nats."""
        return jax.nn.logsumexp(_log_components(x - self.means, self.stds**2, self.weights))

    def sample(self, key, n):
        key_component, key_noise = jr.split(key)
        component = jr.categorical(key_component, jnp.log(self.weights), shape=(n,))
        noise = normal(key_noise, (n, *self.shape), self.means.dtype)
        return self.means[component] + self.stds[component].reshape(n, *[1] * len(self.shape)) * noise


class Empirical(AbstractAnalyticModel):
    """K equally likely points: a density under any noise, and none without.

    Arguments:
        points: Points, of shape (K, *shape).

    Example:
        >>> model = Empirical(jnp.asarray([[0.0, 0.0], [1.0, 1.0]]))
        >>> model.denoise(sgm.VE(), 0.2, jnp.asarray([0.8, 0.9])).round(3)  # under little noise, the nearest point
        Array([1., 1.], dtype=float32)
    """

    points: Float[Array, "K *shape"]

    def __init__(self, points: Float[Array, "K *shape"]):
        self.points = points

    @property
    def shape(self):
        return self.points.shape[1:]

    def predict(self, level, u, cond=None, key=None):
        return self._mixture().predict(level, u)

    def marginal(self, sde, t):
        return self._mixture().marginal(sde, t)

    def sample(self, key, n):
        return jr.choice(key, self.points, (n,))

    def _mixture(self):
        count, dtype = self.points.shape[0], self.points.dtype
        return GaussianMixture(self.points, jnp.zeros(count, dtype), jnp.full(count, 1 / count, dtype))


def _log_components(offsets, variances, weights):
    """log weights_k + log N(offsets_k; 0, variances_k I), shape (K,)."""
    entries = offsets.reshape(offsets.shape[0], -1)
    quadratic = jnp.sum(entries**2, axis=1) / variances
    return jnp.log(weights) - 0.5 * (quadratic + entries.shape[1] * jnp.log(2 * jnp.pi * variances))
