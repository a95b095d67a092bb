import jax.numpy as jnp

from sgm.sde.base import AbstractSDE


class VE(AbstractSDE):
    """The variance-exploding process: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t on [0, 1].

    Source: Song et al. 2021 (arXiv:2011.13456, eq. 9 and appendix C).
    """

    sigma_min: float = 1e-3
    sigma_max: float = 1e2
    t0: float = 0.0
    t1: float = 1.0

    def __check_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"VE: got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; pass 0 < sigma_min < sigma_max."
            )

    def alpha(self, t):
        return jnp.ones_like(t, jnp.result_type(float))

    def sigma(self, t):
        return self.sigma_min * jnp.exp(jnp.log(self.sigma_max / self.sigma_min) * jnp.asarray(t))

    def time(self, theta):
        return jnp.log(jnp.tan(theta) / self.sigma_min) / jnp.log(self.sigma_max / self.sigma_min)
