"""The probability flow with its divergence, from data to noise or from noise to data."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from sgm.likelihood.trace import AbstractTrace, Estimates
from sgm.model.base import AbstractModel
from sgm.model.condition import Condition
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL, angle_rate, clock_of, level_at
from sgm.solve.controllers import NatsController
from sgm.types import Example

MAX_STEPS = 4096
FIRST_STEP = 0.3  # of the noise level: less than the scale on which the flow of any data can change


class FlowAndDivergence(eqx.Module):
    """(u, estimates) -> (velocity, estimates of its divergence), on the clock of `sgm.sde.level`, or on minus it.

    From noise to data the clock is minus it, so that it increases.
    """

    model: AbstractModel
    cond: Condition | None
    trace: AbstractTrace
    to_data: bool = eqx.field(static=True)

    @property
    def sign(self) -> int:
        """Of the clock."""
        return -1 if self.to_data else 1

    def __call__(self, clock, state, drawn):
        u, _ = state
        level = level_at(self.sign * clock)
        rate = self.sign * angle_rate(level)
        velocity, products = self.trace.along(lambda u: self.model.predict(level, u, self.cond).velocity, u, drawn)
        return rate * velocity, rate * self.trace.estimates(products)

    def solve(
        self,
        sde: AbstractSDE,
        u: Example,
        key: PRNGKeyArray | None,
        solver: diffrax.AbstractERK,
        controller: diffrax.AbstractAdaptiveStepSizeController,
        adjoint: diffrax.AbstractAdjoint,
    ) -> tuple[Example, Estimates, diffrax.Solution]:
        """u at the other end, the trace's estimates of the divergence's integral, and Diffrax's solution.

        The integral is over the clock, so that it has the sign of log p at the end less log p at the start, reversed.
        """
        # In the precision of u: Diffrax would promote the state to that of the times.
        low, high = (jnp.asarray(sde.level(t), u.dtype) for t in (sde.t0, sde.t1))
        high = jnp.minimum(high, LARGEST_LEVEL)
        first, last, towards = (high, low, -1) if self.to_data else (low, high, 1)
        start, end = self.sign * clock_of(first), self.sign * clock_of(last)
        drawn = self.trace.draw(key, u)
        no_change = jnp.zeros_like(self.trace.estimates(jnp.zeros(self.trace.products(u.shape), u.dtype)))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(self),
            solver,
            start,
            end,
            self.sign * clock_of(first + towards * FIRST_STEP) - start,
            (u, no_change),
            args=drawn,
            stepsize_controller=NatsController(controller, self._total, self.sign),
            adjoint=adjoint,
            max_steps=MAX_STEPS,
            throw=False,
        )
        assert solution.ys is not None  # Both ends are saved by default.
        us, estimates = solution.ys
        return us[-1], estimates[-1], solution

    def _total(self, estimates):
        return self.trace.combine(estimates)[0]


def evaluations(solver: diffrax.AbstractERK, steps: Int[Array, ""]) -> Any:
    """Evaluations of a Runge-Kutta method, for `steps` accepted or not.

    A method whose last stage is the next step's first takes one less a step and one at the start.
    """
    tableau: Any = solver.tableau
    stages = tableau.num_stages
    return (stages - 1) * steps + 1 if tableau.fsal else stages * steps
