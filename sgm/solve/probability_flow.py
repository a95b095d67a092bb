import diffrax

from sgm.solve.grid import FixedSteps
from sgm.solve.method import AbstractMethod
from sgm.solve.terms import UniversalFlow


class ProbabilityFlow(AbstractMethod):
    """Any Diffrax ODE solver on the probability flow in (u, theta): adaptive, or on fixed steps."""

    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    stepping: diffrax.AbstractStepSizeController | FixedSteps = diffrax.PIDController(rtol=1e-4, atol=1e-4)

    def equation(self, sde, model, cond):
        return UniversalFlow(sde, model, cond)
