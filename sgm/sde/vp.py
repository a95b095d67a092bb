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

    dx = -beta/2 x dt + sqrt(beta) dw.

    Raises:
        ValueError: unless t0 < t1, and the log-SNR is finite at t0 and falls from there to t1.

    Example:
        >>> class Short(AbstractVP):
        ...     schedule: AbstractSchedule = Cosine()
        ...     t0: float = 0.0
        ...     t1: float = 0.5
        >>> round(float(Short().alpha(0.5)), 2)  # of a process that ends where there is as much noise as data
        0.71

    Reference: Song et al. 2021 (arXiv:2011.13456, eq. 11).
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

    Raises:
        TypeError: for what is no schedule.
        ValueError: unless t0 < t1, and the log-SNR is finite at t0 and falls from there to t1.

    Example:
        >>> sde = VP(Cosine())
        >>> scale, std = sde.transition(0.2, 0.7)
        >>> later = scale * x + std * jr.normal(key, x.shape)  # x at 0.7, given x at 0.2

    Reference: Song et al. 2021 (arXiv:2011.13456, eq. 11 and appendix C).
    """

    schedule: AbstractSchedule = Linear()
    t0: Number = 1e-5
    t1: Number = 1.0

    def __check_init__(self):
        check_schedule("VP", self.schedule)
