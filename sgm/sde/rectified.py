"""The straight path of rectified flow."""

import jax
import jax.numpy as jnp

from sgm.sde.base import AbstractSDE
from sgm.types import Number


class Rectified(AbstractSDE):
    """The straight path of rectified flow: alpha = 1 - t, sigma = t. At t1 = 1 nothing is left of the data.

    Arguments:
        t0: Time at which the process begins, at the data.
        t1: Time at which the process ends, at noise.

    Raises:
        ValueError: unless 0 < t0 < t1 <= 1.

    Example:
        >>> mean, std = Rectified().marginal(0.25, x)
        >>> float(std)
        0.25
        >>> Rectified(t1=1.0).ends_in_pure_noise
        True

    Reference: Liu et al. 2023 (arXiv:2209.03003); Lipman et al. 2023 (arXiv:2210.02747), with time running towards
    noise.
    """

    t0: Number = 1e-3
    t1: Number = 0.999

    def alpha(self, t):
        return 1.0 - jnp.asarray(t)

    def sigma(self, t):
        return 1.0 * jnp.asarray(t)

    def rho(self, t):
        return jnp.hypot(self.alpha(t), self.sigma(t))

    def level(self, t):
        return jnp.log(self.sigma(t)) - jnp.log(self.alpha(t))

    def time(self, level):
        return jax.nn.sigmoid(jnp.asarray(level, jnp.result_type(float)))
