"""The multistep samplers DPM-Solver++, of the flow and of the reverse SDE."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_count, check_order
from sgm.sde.level import cos_of, removed, sin_of
from sgm.solve.grid import AbstractGrid, LogSNRGrid
from sgm.solve.sampler import AbstractSampler
from sgm.types import Scalar


def exponentials(h: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """The integrals over y from 0 to h of e^(y - h) times 1, y / h and (y / h)^2 / 2."""
    first = -jnp.expm1(-h)
    second = 1 - first / h
    return first, second, 0.5 - second / h


class _AbstractMultistep(AbstractSampler):
    """The denoised estimate is extrapolated from this step and `order - 1` before it, one evaluation a step.

    The first steps, which have no past, are of lower order. With h = l_t - l_s, and rate 1 for the probability flow, 2
    for the reverse SDE,

        u_s = (sin_s / sin_t) e^((1 - rate) h) u_t + cos_s * integral over y from 0 to H of e^(y - H) denoised dy
              + (1 - e^(2 (1 - rate) h))^(1/2) sin_s z,        H = rate h
    """

    @property
    @abstractmethod
    def order(self) -> int:
        """1, 2 or 3: of the error by the steps' length, noise aside."""

    @property
    @abstractmethod
    def rate(self) -> int:
        """1 or 2."""

    def __check_init__(self):
        check_count(type(self).__name__, "steps", self.steps)
        check_order(type(self).__name__, self.order)

    def memory(self, u):
        past = self.order - 1
        return jnp.zeros(past, u.dtype), jnp.zeros((past, *u.shape), u.dtype), jnp.asarray(0)

    def advance(self, predict, t, s, u, noise, memory):
        levels, pasts, count = memory  # Of the steps before, newest first, and how many there are.
        x0, h = predict(t, u).denoised, t - s
        phi1, phi2, phi3 = exponentials(self.rate * h)
        mean = phi1 * x0
        if self.order > 1:
            # Divided differences, times h and h^2; what has no past yet is left out.
            gap = jnp.where(count >= 1, levels[0] - t, 1)
            first = jnp.where(count >= 1, h / gap * (x0 - pasts[0]), 0)
        if self.order == 2:
            mean = mean + phi1 / 2 * first
        if self.order == 3:
            older = jnp.where(count >= 2, levels[1] - levels[0], 1)
            second = h / (gap + older) * (first - h / older * (pasts[0] - pasts[1]))
            second = jnp.where(count >= 2, second, 0)
            mean = mean + phi2 * (first + gap / h * second) + 2 * phi3 * second
        u = sin_of(s) / sin_of(t) * jnp.exp((1 - self.rate) * h) * u + cos_of(s) * mean
        if self.draws:
            u = u + jnp.sqrt(removed(s, t)) * sin_of(s) * noise[0]
        newest = jnp.concatenate([t[None], levels])[: self.order - 1]
        return u, (newest, jnp.concatenate([x0[None], pasts])[: self.order - 1], count + 1)


class DPMSolverPP(_AbstractMultistep):
    """The multistep DPM-Solver++ of the probability flow, of order 1 (which is DDIM), 2 or 3.

    The default is for speed: it draws Gaussians with a spread that is off by 2%.

    Arguments:
        steps: Number of steps.
        order: Order of the solver: 1, 2 or 3.
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a grid of another type, and a number of steps that is not whole.
        ValueError: for fewer than one step, and another order.

    Example:
        >>> experiment = sgm.Experiment(Digits(), partial(MLP, width=64), sampler=DPMSolverPP(30, order=3))

    Reference: Lu et al. 2022 (arXiv:2211.01095, algorithm 2). Order 3 takes the second derivative that the Taylor
    expansion asks for, twice that of published code.
    """

    steps: int = eqx.field(static=True, default=20)
    order: int = eqx.field(static=True, default=2)
    grid: AbstractGrid = LogSNRGrid()

    @property
    def rate(self):
        return 1


class SDEDPMSolverPP(_AbstractMultistep):
    """The multistep DPM-Solver++ of the reverse SDE, one draw a step.

    Arguments:
        steps: Number of steps.
        order: Order of the solver: 1, 2 or 3.
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a grid of another type, and a number of steps that is not whole.
        ValueError: for fewer than one step, and another order.

    Example:
        >>> times = diffrax.SaveAt(ts=jnp.linspace(sde.t1, sde.t0, 4))
        >>> path = sgm.sample(sde, model, key, 8, method=SDEDPMSolverPP(10), saveat=times)
        >>> path.shape
        (8, 4, 2)

    Reference: Lu et al. 2022 (arXiv:2211.01095, appendix C: SDE-DPM-Solver++(2M)).
    """

    steps: int = eqx.field(static=True, default=50)
    order: int = eqx.field(static=True, default=2)
    grid: AbstractGrid = LogSNRGrid()

    @property
    def rate(self):
        return 2

    @property
    def draws(self):
        return 1
