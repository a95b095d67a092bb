"""The variance-exploding process."""

import jax.numpy as jnp

from sgm.checks import is_traced
from sgm.sde.base import AbstractSDE
from sgm.types import Number


class VE(AbstractSDE):
    """The variance-exploding process: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t on [0, 1].

    Arguments:
        sigma_min: Standard deviation of the noise at t = 0.
        sigma_max: Standard deviation of the noise at t = 1.
        t0: Time at which the process begins, at the data.
        t1: Time at which the process ends, at noise.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max, and t0 < t1.

    Example:
        >>> sde = VE(sigma_min=0.01, sigma_max=50.0)
        >>> mean, std = sde.marginal(1.0, x)
        >>> round(float(std), 2)
        50.0

    Reference: Song et al. 2021 (arXiv:2011.13456, eq. 9 and appendix C).
    """

    sigma_min: Number = 1e-3
    sigma_max: Number = 1e2
    t0: Number = 0.0
    t1: Number = 1.0

    def __check_init__(self):
        if not is_traced((self.sigma_min, self.sigma_max)) and not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"VE: got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; pass 0 < sigma_min < sigma_max."
            )

    def alpha(self, t):
        return jnp.ones_like(t, jnp.result_type(float))

    def sigma(self, t):
        return jnp.exp(self.level(t))

    def rho(self, t):
        return jnp.hypot(1.0, self.sigma(t))

    def level(self, t):
        first, last = jnp.log(self.sigma_min), jnp.log(self.sigma_max)
        return first + (last - first) * jnp.asarray(t)

    def time(self, level):
        first, last = jnp.log(self.sigma_min), jnp.log(self.sigma_max)
        return (jnp.asarray(level) - first) / (last - first)
