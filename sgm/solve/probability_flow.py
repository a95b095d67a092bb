"""The probability flow as a method of sampling."""

import diffrax

from sgm.solve.grid import FixedSteps
from sgm.solve.method import AbstractMethod
from sgm.solve.terms import UniversalFlow


class ProbabilityFlow(AbstractMethod):
    """Any Diffrax ODE solver on the probability flow of u: adaptive, or on fixed steps.

    An adaptive controller's `atol` is relative to the noise of the level, sin(theta), so that narrow data are drawn as
    accurately as wide ones. Its `rtol` is relative to |u|: take it far below the width of the narrowest direction of
    the data.

    Arguments:
        solver: Solver of Diffrax.
        stepping: Step size controller of Diffrax, or fixed steps on a grid.

    Raises:
        TypeError: for a solver or a stepping of another type.

    Example:
        >>> x = sgm.sample(sde, model, key, 8, method=ProbabilityFlow())
        >>> method = ProbabilityFlow(diffrax.Dopri8(), diffrax.PIDController(rtol=1e-7, atol=1e-6))  # to more digits

    Reference: Song et al. 2021 (arXiv:2011.13456, eq. 13).
    """

    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    stepping: diffrax.AbstractStepSizeController | FixedSteps = diffrax.PIDController(rtol=1e-7, atol=3e-3)

    def equation(self, sde, model, cond):
        return UniversalFlow(sde, model, cond)

    def check_adjoint(self, adjoint):
        if isinstance(self.stepping, FixedSteps):
            super().check_adjoint(adjoint)
