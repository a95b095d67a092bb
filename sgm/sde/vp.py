import equinox as eqx
import jax.numpy as jnp

from sgm.sde.base import AbstractSDE
from sgm.sde.schedules import AbstractSchedule, Linear


class AbstractVP(AbstractSDE):
    """A variance-preserving process: alpha = exp(-B/2), sigma^2 = 1 - exp(-B), for a schedule's integrated rate B(t).

    dx = -beta/2 x dt + sqrt(beta) dw. Source: Song et al. 2021 (arXiv:2011.13456, eq. 11).
    """

    schedule: eqx.AbstractVar[AbstractSchedule]

    def alpha(self, t):
        return jnp.exp(-0.5 * self.schedule.integral(t))

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(-self.schedule.integral(t)))

    def time(self, theta):
        return self.schedule.inverse(jnp.log1p(jnp.tan(theta) ** 2))


class VP(AbstractVP):
    """The variance-preserving process in continuous time."""

    schedule: AbstractSchedule = Linear()
    t0: float = 1e-5
    t1: float = 1.0
