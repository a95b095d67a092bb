"""The probability flow with its divergence, from data to noise or from noise to data."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from sgm.likelihood.trace import AbstractTrace
from sgm.model.base import AbstractModel, estimate_of
from sgm.nn.condition import Condition
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL, angle_rate, clock_of, cos_of, level_at, sin_of
from sgm.solve.controllers import LARGEST_STEP, NatsController
from sgm.types import Example, Scalar

MAX_STEPS = 4096


class Course(eqx.Module):
    """The choices of a solve that its tolerance leaves open. Solves of different courses share no steps.

    Arguments:
        first_step, largest_step: of the noise level, whose flow changes its course within about one, for any data. A
            step over several could see nothing of a direction that is wide or narrow.
        stretch: How many times as wide the reference is as that whose flow diverges as the model's at the start.
    """

    first_step: float = eqx.field(static=True, default=0.3)
    largest_step: float = eqx.field(static=True, default=LARGEST_STEP)
    stretch: float = eqx.field(static=True, default=1.0)


class Reference(eqx.Module):
    """N(0, std^2 I), whose own flow u = q z with a constant z, q^2 = cos^2 std^2 + sin^2, is known.

    A solve for z has to find only by what the data differ from it: rounding and steps are not spent on what is known.
    """

    std: Scalar

    def scale(self, level: Scalar) -> Scalar:
        """q."""
        return jnp.sqrt((cos_of(level) * self.std) ** 2 + sin_of(level) ** 2)

    def slope(self, level: Scalar) -> Scalar:
        """d log(q) / d theta, its flow's velocity over u."""
        return cos_of(level) * sin_of(level) * (1 - self.std) * (1 + self.std) / self.scale(level) ** 2


class FlowAndDivergence(eqx.Module):
    """(z, estimates) -> (velocity of z, estimates of its divergence), u = q z, with q of a `Reference`.

    The clock is that of `sgm.sde.level`; from noise to data minus it, so that it increases.
    """

    model: AbstractModel
    cond: Condition | None
    trace: AbstractTrace
    to_data: bool = eqx.field(static=True)
    course: Course = Course()

    @property
    def sign(self) -> int:
        """Sign of the clock."""
        return -1 if self.to_data else 1

    def __call__(self, clock, state, args):
        (z, _), (drawn, reference) = state, args
        level = level_at(self.sign * clock)
        scale, slope = reference.scale(level), reference.slope(level)

        def velocity(z):
            return estimate_of(self.model, level, scale * z, self.cond).velocity / scale - slope * z

        value, products = self.trace.along(velocity, z, drawn)
        rate = self.sign * angle_rate(level)
        return rate * value, rate * self.trace.estimates(products)

    def solve(
        self,
        sde: AbstractSDE,
        u: Example,
        key: PRNGKeyArray | None,
        solver: diffrax.AbstractERK,
        controller: diffrax.AbstractAdaptiveStepSizeController,
        adjoint: diffrax.AbstractAdjoint,
    ) -> tuple[Example, tuple[Scalar, Scalar, Scalar], diffrax.Solution]:
        """u at the other end, log p at the start less log p at the end, its standard error and degrees of freedom.

        Also Diffrax's solution.
        """
        # In the precision of u: Diffrax would promote the state to that of the times.
        low, high = (jnp.asarray(sde.level(t), u.dtype) for t in (sde.t0, sde.t1))
        high = jnp.minimum(high, LARGEST_LEVEL)
        first, last, towards = (high, low, -1) if self.to_data else (low, high, 1)
        start, end = self.sign * clock_of(first), self.sign * clock_of(last)
        first_step = self.sign * clock_of(first + towards * self.course.first_step) - start
        drawn = self.trace.draw(key, u)
        reference = Reference(jnp.ones((), u.dtype)) if self.to_data else self._reference(first, u, drawn)
        no_change = jnp.zeros_like(self.trace.estimates(jnp.zeros(self.trace.products(u.shape), u.dtype)))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(self),
            solver,
            start,
            end,
            None,
            (u / reference.scale(first), no_change),
            args=(drawn, reference),
            stepsize_controller=NatsController(
                controller, self._total, reference.scale, first_step, self.sign, self.course.largest_step
            ),
            adjoint=adjoint,
            max_steps=MAX_STEPS,
            throw=False,
        )
        assert solution.ys is not None  # Both ends are saved by default.
        zs, estimates = solution.ys
        change, stderr, dof = self.trace.combine(estimates[-1])
        stretch = u.size * jnp.log(reference.scale(last) / reference.scale(first))
        return reference.scale(last) * zs[-1], (stretch + change, stderr, dof), solution

    def _reference(self, level, u, drawn):
        """That whose flow diverges at `u` as the model's does; the result does not depend on it."""

        def velocity(u):
            return estimate_of(self.model, level, u, self.cond).velocity

        _, products = self.trace.along(velocity, jax.lax.stop_gradient(u), drawn)
        slope = jax.lax.stop_gradient(self._total(self.trace.estimates(products))) / u.size
        cos, sin = cos_of(level), sin_of(level)
        square = (cos * sin - slope * sin**2) / jnp.maximum(cos * sin + slope * cos**2, 1e-8 * cos * sin)
        return Reference(self.course.stretch * jnp.sqrt(jnp.clip(square, 0, 1e8)))

    def _total(self, estimates):
        return self.trace.combine(estimates)[0]


def evaluations(solver: diffrax.AbstractERK, steps: Int[Array, ""]) -> Any:
    """Evaluations of a Runge-Kutta method, for `steps` accepted or not.

    A method whose last stage is the next step's first takes one less a step and one at the start.
    """
    tableau: Any = solver.tableau
    stages = tableau.num_stages
    return (stages - 1) * steps + 1 if tableau.fsal else stages * steps
