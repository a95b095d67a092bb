import jax.numpy as jnp

from sgm.sde.base import AbstractSDE


class Rectified(AbstractSDE):
    """The straight path of rectified flow: alpha = 1 - t, sigma = t.

    Source: Liu et al. 2023 (arXiv:2209.03003); Lipman et al. 2023 (arXiv:2210.02747), with time running towards noise.
    """

    t0: float = 1e-3
    t1: float = 0.999

    def alpha(self, t):
        return 1.0 - jnp.asarray(t)

    def sigma(self, t):
        return 1.0 * jnp.asarray(t)

    def time(self, theta):
        return jnp.sin(theta) / (jnp.sin(theta) + jnp.cos(theta))
