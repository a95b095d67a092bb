"""The reverse SDE by any Diffrax solver."""

import diffrax

from sgm.checks import check_instance
from sgm.solve.grid import FixedSteps
from sgm.solve.method import AbstractMethod
from sgm.solve.terms import UniversalSDE


class ReverseSDE(AbstractMethod):
    """Any Diffrax SDE solver on the universal reverse SDE, whose noise is additive: adaptive, or on fixed steps.

    An adaptive controller's `atol` is relative to the noise of the level, sin(theta), so that narrow data are drawn as
    accurately as wide ones. Its `rtol` is relative to |u|: take it far below the width of the narrowest direction of
    the data.

    Arguments:
        solver: Solver of Diffrax.
        stepping: Step size controller of Diffrax, or fixed steps on a grid.

    Raises:
        TypeError: for a solver or a stepping of another type.
        ValueError: for a solver that solves no SDEs, and one that divides its steps, such as `diffrax.HalfSolver`, on
            fixed steps.

    Example:
        >>> method = ReverseSDE(diffrax.SEA(), FixedSteps(100))
        >>> controller = diffrax.PIDController(rtol=1e-7, atol=0.03, pcoeff=0.1, icoeff=0.3)
        >>> adaptive = ReverseSDE(stepping=controller)  # to more digits than by default

    Reference: Anderson 1982 (doi:10.1016/0304-4149(82)90051-5); Song et al. 2021 (arXiv:2011.13456, eq. 6). The default
    solver is of Foster et al. 2023 (arXiv:2210.17543).
    """

    solver: diffrax.AbstractSolver = diffrax.ShARK()
    stepping: diffrax.AbstractStepSizeController | FixedSteps = diffrax.PIDController(
        rtol=1e-7, atol=0.1, pcoeff=0.1, icoeff=0.3
    )

    def __check_init__(self):
        check_instance("ReverseSDE", "solver", self.solver, diffrax.AbstractSolver, "diffrax.ShARK()")
        if not isinstance(self.solver, diffrax.AbstractItoSolver | diffrax.AbstractStratonovichSolver):
            raise ValueError(f"ReverseSDE: {type(self.solver).__name__} solves no SDEs; pass a solver that does.")
        if isinstance(self.stepping, FixedSteps) and isinstance(self.solver, diffrax.AbstractWrappedSolver):
            raise ValueError(
                f"ReverseSDE: {type(self.solver).__name__} divides its steps, whose noise is known as a whole; "
                "pass the solver it wraps, or an adaptive controller."
            )

    def equation(self, sde, model, cond):
        return UniversalSDE(sde, model, cond)
