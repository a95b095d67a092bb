"""The single-step sampler DPM-Solver++."""

import equinox as eqx

from sgm.checks import check_count, check_order
from sgm.sde.level import cos_of, sin_of
from sgm.solve.dpm_solver import exponentials
from sgm.solve.grid import AbstractGrid, LogSNRGrid
from sgm.solve.sampler import AbstractSampler


class SingleDPMSolverPP(AbstractSampler):
    """The singlestep DPM-Solver++ of the probability flow: `order` evaluations within each step, and no memory.

    Order 2 has its second evaluation halfway in level, order 3 its two at a third and two thirds.
    The default is for speed: it draws Gaussians with a spread that is off by 7%.

    Arguments:
        steps: Number of steps.
        order: Order of the solver, and number of evaluations a step: 1, 2 or 3.
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a grid of another type, and a number of steps that is not whole.
        ValueError: for fewer than one step, and another order.

    Example:
        >>> noised = sde.alpha(0.4) * x + sde.sigma(0.4) * jr.normal(jr.key(1), x.shape)
        >>> variants = sgm.sample(sde, model, key, method=SingleDPMSolverPP(5), start=(0.4, noised))

    Reference: Lu et al. 2022 (arXiv:2211.01095, algorithm 1 and appendix B).
    """

    steps: int = eqx.field(static=True, default=10)
    order: int = eqx.field(static=True, default=2)
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_count("SingleDPMSolverPP", "steps", self.steps)
        check_order("SingleDPMSolverPP", self.order)

    def advance(self, predict, t, s, u, noise, memory):
        h = t - s
        x0 = predict(t, u).denoised

        def at(share, slope):
            """u after `share` of the step, for denoised = x0 + slope * (share of the step so far)."""
            level = t - share * h
            phi1, phi2, _ = exponentials(share * h)
            return sin_of(level) / sin_of(t) * u + cos_of(level) * (phi1 * x0 + share * phi2 * slope)

        def slope(share, u):
            return (predict(t - share * h, u).denoised - x0) / share

        if self.order == 1:
            return at(1.0, 0.0), memory
        if self.order == 2:
            middle = slope(1 / 2, at(1 / 2, 0.0))
            phi1, _, _ = exponentials(h)
            return sin_of(s) / sin_of(t) * u + cos_of(s) * phi1 * (x0 + middle / 2), memory
        third = slope(1 / 3, at(1 / 3, 0.0))
        return at(1.0, slope(2 / 3, at(2 / 3, third))), memory
