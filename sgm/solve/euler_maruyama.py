"""Euler-Maruyama steps of the reverse SDE."""

import diffrax
import equinox as eqx

from sgm.checks import check_count, check_instance
from sgm.solve.grid import AbstractGrid, FixedSteps, LogSNRGrid
from sgm.solve.method import AbstractMethod
from sgm.solve.terms import ReverseTimeSDE


class EulerMaruyama(AbstractMethod):
    """Euler-Maruyama on the reverse SDE in (x, t), `steps` evaluations of the model. Weak order 1.

    The default draws Gaussians with a spread that is off by up to 2%, most where they are as narrow as the noise at t0.

    Arguments:
        steps: Number of steps.
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a grid of another type, and a number of steps that is not whole.
        ValueError: for fewer than one step.

    Example:
        >>> method = EulerMaruyama(1000, grid=UniformGrid())
        >>> method.levels(sgm.VP()).shape  # those of both ends, and between the steps
        (1001,)

    Reference: Song et al. 2021 (arXiv:2011.13456, eq. 6), there on a grid uniform in t.
    """

    steps: int = eqx.field(static=True, default=500)
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_count("EulerMaruyama", "steps", self.steps)
        check_instance("EulerMaruyama", "grid", self.grid, AbstractGrid, "sgm.solve.LogSNRGrid()")

    @property
    def solver(self):
        return diffrax.Euler()

    @property
    def stepping(self):
        return FixedSteps(self.steps, self.grid)

    def equation(self, sde, model, cond):
        return ReverseTimeSDE(sde, model, cond)
