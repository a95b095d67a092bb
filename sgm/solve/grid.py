"""Where a sampler steps: decreasing noise levels from that of t1 to that of t0."""

import math
from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import check_count, check_instance, check_positive, is_traced
from sgm.sde.base import AbstractSDE
from sgm.types import Number

FIRST_LEVEL = math.log(1e3)
"""Where the first step ends of a grid that is even in the level, or in a power of it, if it begins at pure noise."""


class AbstractGrid(eqx.Module):
    """A rule that places steps along a process."""

    @abstractmethod
    def levels(self, sde: AbstractSDE, steps: int) -> Float[Array, "{steps}+1"]:
        """`steps + 1` decreasing levels log tan(theta), the first that of `sde.t1` and the last that of `sde.t0`."""

    def process(self, sde: AbstractSDE, steps: int) -> AbstractSDE:
        """`sde` between the ends of a grid that does not go all the way, and `sde` itself of one that does."""
        return sde

    def times(self, sde: AbstractSDE, steps: int) -> Float[Array, "{steps}+1"]:
        """The times of the levels, the first exactly `t1` and the last exactly `t0` of `process(sde, steps)`."""
        sde = self.process(sde, steps)
        return _with_ends(sde.t1, sde.time(self.levels(sde, steps)[1:-1]), sde.t0)


class UniformGrid(AbstractGrid):
    """Uniform in t.

    Example:
        >>> print(UniformGrid().times(sgm.VP(), 4).round(2))
        [1.   0.75 0.5  0.25 0.  ]
        >>> method = sgm.PredictorCorrector(1000, grid=UniformGrid())
    """

    def levels(self, sde, steps):
        return sde.level(jnp.linspace(sde.t1, sde.t0, steps + 1))


class QuadraticGrid(AbstractGrid):
    """Uniform in sqrt(t), so denser near the data.

    Example:
        >>> print(QuadraticGrid().times(sgm.VP(), 4).round(2))
        [1.   0.56 0.25 0.06 0.  ]
        >>> method = sgm.DDIM(50, grid=QuadraticGrid())

    Reference: Song et al. 2021 (DDIM, arXiv:2010.02502, appendix D.2).
    """

    def levels(self, sde, steps):
        inner = jnp.linspace(jnp.sqrt(sde.t1), jnp.sqrt(sde.t0), steps + 1)[1:-1] ** 2
        return sde.level(_with_ends(sde.t1, inner, sde.t0))


class ThetaGrid(AbstractGrid):
    """Uniform in theta = atan2(sigma, alpha).

    Example:
        >>> print(ThetaGrid().times(sgm.VP(Cosine()), 4).round(2))  # whose theta is linear in t
        [1.   0.75 0.5  0.25 0.  ]
        >>> method = sgm.SDEDPMSolverPP(30, grid=ThetaGrid())
    """

    def levels(self, sde, steps):
        first, last = _ends(sde)
        # The angle's complement is uniform as well, and has digits where the angle has none.
        complement = jnp.linspace(jnp.arctan(jnp.exp(-first)), jnp.arctan(jnp.exp(-last)), steps + 1)[1:-1]
        return _with_ends(first, -jnp.log(jnp.tan(complement)), last)


class LogSNRGrid(AbstractGrid):
    """Uniform in log_snr = -2 log tan(theta). From pure noise, the first step is to sigma/alpha = 1000.

    Example:
        >>> levels = LogSNRGrid().levels(sgm.VE(1e-2, 1e2), 4)
        >>> print((levels / jnp.log(10.0)).round(2))  # log10(sigma)
        [ 2.  1.  0. -1. -2.]
        >>> method = sgm.SingleDPMSolverPP(10, grid=LogSNRGrid())  # as by default
    """

    def levels(self, sde, steps):
        first, last = _ends(sde)
        from_noise = jnp.linspace(FIRST_LEVEL, last, steps)
        even = jnp.linspace(jnp.where(jnp.isinf(first), FIRST_LEVEL, first), last, steps + 1)[1:]
        return _with_ends(first, jnp.where(jnp.isinf(first), from_noise, even)[:-1], last)


class KarrasGrid(AbstractGrid):
    """Uniform in (sigma/alpha)^(1/power). From pure noise, the first step is to sigma/alpha = 1000.

    Arguments:
        power: Power of sigma/alpha; a larger one places more steps near the data.

    Raises:
        ValueError: for a power that is not above 0.

    Example:
        >>> levels = KarrasGrid().levels(sgm.VE(2e-3, 80.0), 4)
        >>> print(jnp.exp(levels).round(1))  # sigma; the last is 0.002
        [80.  17.5  2.5  0.2  0. ]
        >>> method = sgm.DPMSolverPP(20, grid=KarrasGrid(power=5.0))

    Reference: Karras et al. 2022 (arXiv:2206.00364, eq. 5).
    """

    power: Number = 7.0

    def __check_init__(self):
        check_positive("KarrasGrid", "power", self.power)

    def levels(self, sde, steps):
        first, last = _ends(sde)
        high, low = (jnp.exp(level / self.power) for level in (jnp.where(jnp.isinf(first), FIRST_LEVEL, first), last))
        inner = jnp.where(
            jnp.isinf(first), jnp.linspace(high, low, steps)[:-1], jnp.linspace(high, low, steps + 1)[1:-1]
        )
        return _with_ends(first, self.power * jnp.log(inner), last)


class ShiftedGrid(AbstractGrid):
    """Uniform in t / (shift - (shift - 1) t), for a process on [0, 1]: with shift > 1 denser near the noise.

    Arguments:
        shift: Factor by which t / (1 - t) of evenly spaced times is multiplied. At 1 the grid is uniform in t.

    Raises:
        ValueError: for a shift that is not above 0.

    Example:
        >>> print(ShiftedGrid(3.0).times(sgm.Rectified(), 4).round(2))
        [1.   0.9  0.75 0.5  0.  ]
        >>> method = sgm.ProbabilityFlow(diffrax.Euler(), FixedSteps(28, ShiftedGrid(3.0)))

    Reference: Esser et al. 2024 (arXiv:2403.03206, eq. 23).
    """

    shift: Number = 3.0

    def __check_init__(self):
        check_positive("ShiftedGrid", "shift", self.shift)

    def levels(self, sde, steps):
        first, last = (t / (self.shift - (self.shift - 1) * t) for t in (sde.t1, sde.t0))
        even = jnp.linspace(first, last, steps + 1)[1:-1]
        return sde.level(_with_ends(sde.t1, self.shift * even / (1 + (self.shift - 1) * even), sde.t0))


class FixedSteps(eqx.Module):
    """`steps` steps on a grid, in the place of a step size controller.

    Arguments:
        steps: Number of steps.
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a grid of another type, and a number of steps that is not whole.
        ValueError: for fewer than one step.

    Example:
        >>> method = sgm.ProbabilityFlow(diffrax.Heun(), FixedSteps(20, KarrasGrid()))
        >>> method.stepping.levels(sgm.VP()).shape
        (21,)
    """

    steps: int = eqx.field(static=True, default=100)
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_count("FixedSteps", "steps", self.steps)
        check_instance("FixedSteps", "grid", self.grid, AbstractGrid, "sgm.solve.LogSNRGrid()")

    def process(self, sde: AbstractSDE) -> AbstractSDE:
        """The process between the ends of the grid."""
        return self.grid.process(sde, self.steps)

    def levels(self, sde: AbstractSDE) -> Float[Array, " levels"]:
        """The grid's levels, from that of t1 down to that of t0.

        Raise ValueError if they do not decrease, or have other ends.
        """
        between = self.process(sde)
        if between is not sde:
            raise ValueError(
                f"{type(self.grid).__name__}: {self.steps} steps go from t = {between.t1} to {between.t0}, but the "
                f"process from {sde.t1} to {sde.t0}; pass the process between their ends, grid.process(sde, steps)."
            )
        levels = self.grid.levels(sde, self.steps)
        if not is_traced(levels):
            falls = np.asarray(levels[1:] < levels[:-1])
            if not falls.all():
                step = int(np.argmin(falls))
                raise ValueError(
                    f"{type(self.grid).__name__}: the levels of {self.steps} steps along {type(sde).__name__} do not "
                    f"decrease: level {step} is {levels[step]}, level {step + 1} is {levels[step + 1]}; pass a grid "
                    "that goes down, or fewer steps."
                )
        return levels


def _ends(sde):
    return sde.level(sde.t1), sde.level(sde.t0)


def _with_ends(first, inner, last):
    ends = jnp.stack([jnp.asarray(first, inner.dtype), jnp.asarray(last, inner.dtype)])
    return jnp.concatenate([ends[:1], inner, ends[1:]])
