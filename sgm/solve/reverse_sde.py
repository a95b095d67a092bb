import diffrax

from sgm.solve.grid import FixedSteps
from sgm.solve.method import AbstractMethod
from sgm.solve.terms import UniversalSDE


class ReverseSDE(AbstractMethod):
    """Any Diffrax SDE solver on the universal reverse SDE, whose noise is additive: adaptive, or on fixed steps."""

    solver: diffrax.AbstractSolver = diffrax.ShARK()
    stepping: diffrax.AbstractStepSizeController | FixedSteps = diffrax.PIDController(
        rtol=3e-2, atol=3e-2, pcoeff=0.1, icoeff=0.3
    )

    def equation(self, sde, model, cond):
        return UniversalSDE(sde, model, cond)
