import math

import jax
import jax.numpy as jnp

from sgm.sde.base import AbstractSDE
from sgm.sde.schedules import AbstractSchedule, Linear


class SubVP(AbstractSDE):
    """The sub-variance-preserving process: alpha = exp(-B/2), sigma = 1 - exp(-B), so sigma/alpha = 2 sinh(B/2).

    It starts where sigma/alpha = 1e-3. Source: Song et al. 2021 (arXiv:2011.13456, eq. 12).
    """

    schedule: AbstractSchedule
    t0: float
    t1: float

    def __init__(self, schedule: AbstractSchedule = Linear(), t0: float | None = None, t1: float = 1.0):
        self.schedule = schedule
        with jax.ensure_compile_time_eval():  # A process may be built inside of a trace.
            self.t0 = max(0.0, float(self.time(math.atan(1e-3)))) if t0 is None else t0
        self.t1 = t1

    def alpha(self, t):
        return jnp.exp(-0.5 * self.schedule.integral(t))

    def sigma(self, t):
        return -jnp.expm1(-self.schedule.integral(t))

    def time(self, theta):
        return self.schedule.inverse(2 * jnp.arcsinh(0.5 * jnp.tan(theta)))
