"""The sub-variance-preserving process."""

import math

import jax
import jax.numpy as jnp

from sgm.checks import is_traced
from sgm.sde.base import AbstractSDE
from sgm.sde.schedules import AbstractSchedule, Linear, check_schedule, log1mexp
from sgm.types import Number


class SubVP(AbstractSDE):
    """The sub-variance-preserving process: alpha = exp(-B/2), sigma = 1 - exp(-B), so sigma/alpha = 2 sinh(B/2).

    It starts where sigma/alpha = 1e-3.

    Arguments:
        schedule: Integrated rate of the process.
        t0: Time at which the process begins, at the data. By default sigma/alpha is 1e-3 there.
        t1: Time at which the process ends, at noise.

    Raises:
        TypeError: for what is no schedule.
        ValueError: unless t0 < t1, and the log-SNR is finite at t0 and falls from there to t1.

    Example:
        >>> sde = SubVP(Linear(0.1, 15.0))
        >>> round(float(jnp.exp(sde.level(sde.t0))), 4)  # sigma/alpha where it starts
        0.001

    Reference: Song et al. 2021 (arXiv:2011.13456, eq. 12).
    """

    schedule: AbstractSchedule
    t0: Number
    t1: Number

    def __init__(self, schedule: AbstractSchedule = Linear(), t0: Number | None = None, t1: Number = 1.0):
        check_schedule("SubVP", schedule)
        self.schedule = schedule
        self.t0 = _start(schedule) if t0 is None else t0
        self.t1 = t1

    def alpha(self, t):
        return jnp.exp(-0.5 * self.schedule.integral(t))

    def sigma(self, t):
        return -jnp.expm1(-self.schedule.integral(t))

    def rho(self, t):
        return jnp.hypot(self.alpha(t), self.sigma(t))

    def level(self, t):
        integral = self.schedule.integral(t)
        return 0.5 * integral + log1mexp(integral)

    def time(self, level):
        return self.schedule.inverse(_integral_at(jnp.asarray(level)))


def _integral_at(level):
    return 2 * jnp.arcsinh(0.5 * jnp.exp(level))


def _start(schedule):
    """Where sigma/alpha = 1e-3, or 0 where it is larger everywhere."""
    if is_traced(schedule):
        return jnp.maximum(0.0, schedule.inverse(_integral_at(math.log(1e-3))))
    with jax.ensure_compile_time_eval():  # A process may be built inside of a trace.
        return max(0.0, float(schedule.inverse(_integral_at(math.log(1e-3)))))
