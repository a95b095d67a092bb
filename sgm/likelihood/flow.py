"""The probability flow with its divergence, from data to noise or from noise to data."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.likelihood.trace import AbstractTrace
from sgm.model.base import AbstractModel, estimate_of
from sgm.model.per_example import Own
from sgm.nn.condition import Condition
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL, angle_rate, clock_of, cos_of, level_at, sin_of
from sgm.solve.controllers import LARGEST_STEP, NatsController
from sgm.types import Example, Scalar

State = tuple[Example, Float[Array, " estimates"]]  # z, and the estimates of the divergence's integral.

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


class Path(eqx.Module):
    """What the solve of one example has of its own: the clock runs from `start` to `end`, by `first_step` at first."""

    own: Own
    drawn: Any
    reference: Reference
    start: Scalar
    end: Scalar
    first_step: Scalar

    @property
    def args(self) -> tuple[Any, Reference]:
        """The arguments of `FlowAndDivergence`."""
        return self.drawn, self.reference

    def at(self, clock: Scalar) -> Scalar:
        """The clock, which moves with the ends: its share of the way is held."""
        start, end = jax.lax.stop_gradient((self.start, self.end))
        share = (clock - start) / (end - start)
        return clock + (1 - share) * (self.start - start) + share * (self.end - end)


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

    def of(self, own: Own) -> "FlowAndDivergence":
        """The flow of one example, from what all share."""
        model, cond = own.join(self.model, self.cond)
        return dataclasses.replace(self, model=model, cond=cond)

    def path(self, sde: AbstractSDE, own: Own, u: Example, key: PRNGKeyArray | None) -> tuple["Path", State]:
        """The path of one example from `u`, and the state with which it starts."""
        first, last = self._levels(sde, u)
        towards = -1 if self.to_data else 1
        start, end = self.sign * clock_of(first), self.sign * clock_of(last)
        first_step = self.sign * clock_of(first + towards * self.course.first_step) - start
        drawn = self.trace.draw(key, u)
        reference = Reference(jnp.ones((), u.dtype)) if self.to_data else self.of(own)._reference(first, u, drawn)
        no_change = jnp.zeros_like(self.trace.estimates(jnp.zeros(self.trace.products(u.shape), u.dtype)))
        path = Path(own, drawn, reference, start, end, jax.lax.stop_gradient(first_step))
        return path, (u / reference.scale(first), no_change)

    def solve(
        self,
        path: "Path",
        state: State,
        solver: diffrax.AbstractSolver,
        controller: diffrax.AbstractAdaptiveStepSizeController,
        adjoint: diffrax.AbstractAdjoint,
        saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    ) -> diffrax.Solution:
        """Diffrax's solution along the path of one example."""
        scale = path.reference.scale
        steps = NatsController(controller, self._total, scale, path.first_step, self.sign, self.course.largest_step)
        return diffrax.diffeqsolve(
            diffrax.ODETerm(self.of(path.own)),
            solver,
            path.start,
            path.end,
            None,
            state,
            args=path.args,
            saveat=saveat,
            stepsize_controller=steps,
            adjoint=adjoint,
            max_steps=MAX_STEPS,
            throw=False,
        )

    def carried(self, sde: AbstractSDE, path: "Path", state: State) -> tuple[Example, tuple[Scalar, Scalar, Scalar]]:
        """u at the other end of a path whose last state is given, and what the path has changed of log p.

        The latter is log p at the start less log p at the end, its standard error and degrees of freedom.
        """
        z, estimates = state
        first, last = self._levels(sde, z)
        change, stderr, dof = self.trace.combine(estimates)
        stretch = z.size * jnp.log(path.reference.scale(last) / path.reference.scale(first))
        return path.reference.scale(last) * z, (stretch + change, stderr, dof)

    def _levels(self, sde, u):
        """The first and the last level, in the precision of u: Diffrax would promote the state to that of the times."""
        low, high = (jnp.asarray(sde.level(t), u.dtype) for t in (sde.t0, sde.t1))
        high = jnp.minimum(high, LARGEST_LEVEL)
        return (high, low) if self.to_data else (low, high)

    def _reference(self, level, u, drawn):
        """That whose flow diverges at `u` as the model's does; the result does not depend on it."""

        def velocity(u):
            return estimate_of(self.model, level, u, self.cond).velocity

        _, products = self.trace.along(velocity, jax.lax.stop_gradient(u), drawn)
        slope = jax.lax.stop_gradient(self._total(self.trace.estimates(products))) / u.size
        cos, sin = cos_of(level), sin_of(level)
        square = (cos * sin - slope * sin**2) / jnp.maximum(cos * sin + slope * cos**2, 1e-8 * cos * sin)
        square = jnp.where(jnp.isnan(square), 1, jnp.clip(square, 0, 1e8))  # Of a flow that is nan, any will do.
        return Reference(self.course.stretch * jnp.sqrt(square))

    def _total(self, estimates):
        return self.trace.combine(estimates)[0]


def evaluations(solver: diffrax.AbstractERK, steps: Int[Array, ""]) -> Any:
    """Evaluations of a Runge-Kutta method, for `steps` accepted or not.

    A method whose last stage is the next step's first takes one less a step and one at the start.
    """
    tableau: Any = solver.tableau
    stages = tableau.num_stages
    return (stages - 1) * steps + 1 if tableau.fsal else stages * steps
