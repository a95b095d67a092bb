"""The variance-preserving process."""

import equinox as eqx
import jax
import jax.numpy as jnp

from sgm.sde.base import AbstractSDE
from sgm.sde.level import cos_of, sin_of
from sgm.sde.schedules import AbstractSchedule, Linear, check_schedule, log1mexp
from sgm.types import Number


class AbstractVP(AbstractSDE):
    """A variance-preserving process: alpha = exp(-B/2), sigma^2 = 1 - exp(-B), for a schedule's integrated rate B(t).

    dx = -beta/2 x dt + sqrt(beta) dw. Source: Song et al. 2021 (arXiv:2011.13456, eq. 11).
    """

    schedule: eqx.AbstractVar[AbstractSchedule]

    def alpha(self, t):
        return cos_of(self.level(t))

    def sigma(self, t):
        return sin_of(self.level(t))

    def rho(self, t):
        return jnp.ones_like(t, jnp.result_type(float))

    def level(self, t):
        integral = self.schedule.integral(t)
        return 0.5 * (integral + log1mexp(integral))

    def time(self, level):
        return self.schedule.inverse(jax.nn.softplus(2 * jnp.asarray(level)))


class VP(AbstractVP):
    """The variance-preserving process in continuous time.

    Arguments:
        schedule: Integrated rate of the process.
        t0: Time at which the process begins, at the data.
        t1: Time at which the process ends, at noise.
    """

    schedule: AbstractSchedule = Linear()
    t0: Number = 1e-5
    t1: Number = 1.0

    def __check_init__(self):
        check_schedule("VP", self.schedule)
