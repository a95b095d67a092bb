"""What a model says of the data under the noise.

On the universal path u = cos(theta) x0 + sin(theta) noise, whose velocity is v = du/dtheta, a model estimates

    x0 = cos(theta) u - sin(theta) v          noise = sin(theta) u + cos(theta) v

by their conditional means given u. It knows no process: x = rho(t) u leads to any.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_examples, check_time
from sgm.model.condition import Condition
from sgm.sde.base import AbstractSDE

Scalar = Float[Array, ""]
Example = Float[Array, "*shape"]


class Estimate(eqx.Module):
    """The conditional means E[x0 | u], E[noise | u] and E[velocity | u].

    `log_variance` is the second output of a model that has one: how far the log-variance of a reverse transition is
    moved, as a variance of `sgm.model.kernel` reads it.
    """

    denoised: Example
    noise: Example
    velocity: Example
    log_variance: Example | None = None


def from_denoised(theta: Scalar, u: Example, denoised: Example) -> Estimate:
    """The estimate whose native quantity is x0."""
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    return Estimate(denoised, (u - cos * denoised) / sin, (cos * u - denoised) / sin)


def from_noise(theta: Scalar, u: Example, noise: Example) -> Estimate:
    """The estimate whose native quantity is the noise."""
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    return Estimate((u - sin * noise) / cos, noise, (noise - sin * u) / cos)


def from_velocity(theta: Scalar, u: Example, velocity: Example) -> Estimate:
    """The estimate whose native quantity is the velocity."""
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    return Estimate(cos * u - sin * velocity, sin * u + cos * velocity, velocity)


class AbstractModel(eqx.Module):
    """A model of examples of the given `shape`; it acts on one example, `jax.vmap` makes it act on many."""

    shape: eqx.AbstractVar[tuple[int, ...]]

    @property
    def conditioning(self) -> Any:
        """What a condition is checked against, by its `check(call, cond)`; None where any will do."""
        return None

    @abstractmethod
    def predict(
        self, theta: Scalar, u: Example, cond: Condition | None = None, key: PRNGKeyArray | None = None
    ) -> Estimate:
        """The estimate at noise level `theta` (radians) and `u` of shape `self.shape`; a `key` switches dropout on."""

    def score(self, sde: AbstractSDE, t: Scalar | float, x: Example, cond: Condition | None = None) -> Example:
        """grad_x log p_t(x) = -E[noise | x] / sigma(t), for one example `x` of shape `self.shape`."""
        return -self._predict_at("score", sde, t, x, cond).noise / sde.sigma(t)

    def denoise(self, sde: AbstractSDE, t: Scalar | float, x: Example, cond: Condition | None = None) -> Example:
        """E[x0 | x_t = x], for one example `x` of shape `self.shape`."""
        return self._predict_at("denoise", sde, t, x, cond).denoised

    def _predict_at(self, call, sde, t, x, cond):
        check_examples(call, x, self.shape)
        check_time(call, sde, t)
        return self.predict(sde.theta(t), x / sde.rho(t), cond)
