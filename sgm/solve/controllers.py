"""Step size controllers: to given times, or by an error of a step that is measured by what it does to the result.

The latter wrap a controller of the user's own, which they tell another state and error; its tolerances, gains and
limits stay. None has checks at run time as Diffrax's own have: a function with them calls Python, and so it is neither
stored when it is compiled nor free to run ahead of Python.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sgm.sde.level import LARGEST_LEVEL, angle_between, level_at, sin_of
from sgm.solve.terms import AbstractEquation
from sgm.types import Scalar

Tree = TypeVar("Tree", bound=PyTree)

LARGEST_STEP = 1.65  # Of the level.
_WIDEST = 8.0  # A level well above the logarithm of how wide standardised data may be: 3000 is left for sigma/alpha.
_ORDER = 5  # Of the embedded error, by which a step that is refused for its length shrinks to that length.


def frozen(tree: Tree) -> Tree:
    """The tree with no derivative by its arrays."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


def _length(level0: Scalar, level1: Scalar) -> Scalar:
    """The length of a step between two levels. Those above `_WIDEST` count an eighth: nothing of the data is there."""

    def counted(level):
        return jnp.minimum(level, _WIDEST) + jnp.maximum(level - _WIDEST, 0) / 8

    return jnp.abs(counted(level1) - counted(level0))


class GridController(diffrax.AbstractStepSizeController):
    """Steps to given times, and gives nan where they do not increase.

    Arguments:
        ts: Increasing times, from the start of the solve to its end.
    """

    ts: Float[Array, " times"]

    def wrap(self, direction):
        return GridController(jnp.where(jnp.all(jnp.diff(self.ts * direction) > 0), self.ts * direction, jnp.nan))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.ts[1], 2

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        step = controller_state
        return True, t1, self.ts[step], False, step + 1, diffrax.RESULTS.successful


class _AbstractWrappedController(diffrax.AbstractAdaptiveStepSizeController):
    """A controller that is shown `seen` in the place of a step's states and error, and begins with `first_step`."""

    controller: eqx.AbstractVar[diffrax.AbstractAdaptiveStepSizeController]
    first_step: eqx.AbstractVar[Scalar]

    @property
    def rtol(self):
        return self.controller.rtol

    @property
    def atol(self):
        return self.controller.atol

    @property
    def norm(self):
        return self.controller.norm

    @abstractmethod
    def seen(self, t0: Any, t1: Any, y0: Any, y1: Any, error: Any) -> tuple[Any, Any, Any]:
        """State before, state after and error, for a step of the clock from `t0` to `t1`."""

    @abstractmethod
    def with_controller(self, controller: Any) -> Any:
        """This controller around another."""

    def wrap(self, direction):
        return self.with_controller(self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.controller.init(terms, t0, t1, y0, self.first_step, args, func, error_order)

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        y0, y1, error = self.seen(t0, t1, y0, y1_candidate, y_error)
        return self.controller.adapt_step_size(t0, t1, y0, y1, args, error, error_order, controller_state)


class NoiseController(_AbstractWrappedController):
    """Errors of u in units of the noise of their level, sin(theta), which is all that the path still has to resolve.

    A step is accepted where |error| <= atol sin(theta) + rtol |u|, in the controller's norm, and where it is no longer
    than 1.65 in the level, within about one of which the flow of any data changes its course: the error of a longer one
    may be small by chance. Levels of noise that is wider than any data count an eighth. An error fixed in units of u
    would say nothing of data that are narrower.
    """

    controller: diffrax.AbstractAdaptiveStepSizeController
    equation: AbstractEquation
    first_step: Scalar

    def __init__(
        self, controller: diffrax.AbstractAdaptiveStepSizeController, equation: AbstractEquation, first_step: Scalar
    ):
        # Which step is taken has no derivative; nor may it have one, for an adjoint that solves backwards.
        self.controller, self.equation, self.first_step = frozen((controller, equation, first_step))

    def with_controller(self, controller):
        return NoiseController(controller, self.equation, self.first_step)

    def seen(self, t0, t1, y0, y1, error):
        if not isinstance(y0, jax.Array):  # The state of an adjoint's own solve.
            return y0, y1, error
        level0, level1 = (jnp.minimum(self.equation.level(t), LARGEST_LEVEL) for t in (t0, t1))
        noise = jnp.minimum(sin_of(level0), sin_of(level1))
        y0, y1, error = y0 / noise, y1 / noise, error / noise
        by_length = (_length(level0, level1) / LARGEST_STEP) ** _ORDER
        allowed = self.atol + self.rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1))
        return y0, y1, jnp.maximum(jnp.abs(error), by_length * allowed)


class NatsController(_AbstractWrappedController):
    """Errors of a log-density that is carried along the probability flow, (z, estimates) with u = scale z, in nats.

    An error e of u changes log p by score . e, to first order, and that of the divergence's integral by itself. A step
    is accepted where both together are at most

        atol max(1, D / 1000) + 3 eps |log p|        in nats,

    and where the error of z is at most atol + rtol |z| in the controller's norm. eps is the precision of u. The score
    is -(u + velocity / tan(theta)) in the middle of the step, with the velocity by the difference of its ends.
    `combine` makes the log-density's change of the estimates, `scale` is that of a level; the clock is `sign` times
    `clock_of` of the level. The first step is `first_step` of the clock, and none is longer than `largest_step` of the
    level, where levels of noise that is wider than any data count an eighth.
    """

    controller: diffrax.AbstractAdaptiveStepSizeController
    combine: Callable[[Array], Scalar]
    scale: Callable[[Scalar], Scalar]
    first_step: Scalar
    sign: int = eqx.field(static=True)
    largest_step: float = eqx.field(static=True)

    def __init__(
        self,
        controller: diffrax.AbstractAdaptiveStepSizeController,
        combine: Callable[[Array], Scalar],
        scale: Callable[[Scalar], Scalar],
        first_step: Scalar,
        sign: int,
        largest_step: float,
    ):
        self.controller, self.combine, self.scale, self.first_step = controller, combine, scale, first_step
        self.sign, self.largest_step = sign, largest_step

    def with_controller(self, controller):
        return NatsController(controller, self.combine, self.scale, self.first_step, self.sign, self.largest_step)

    def seen(self, t0, t1, y0, y1, error):
        if len(y0) != 2:  # The state of an adjoint's own solve.
            return y0, y1, error
        # Which step is taken has no derivative.
        (z0, estimates0), (z1, estimates1), (error_z, error_estimates) = jax.lax.stop_gradient((y0, y1, error))
        level0, level1 = level_at(self.sign * t0), level_at(self.sign * t1)
        scale1 = self.scale(level1)
        u0, u1, error_u = self.scale(level0) * z0, scale1 * z1, scale1 * error_z
        middle, level = 0.5 * (u0 + u1), 0.5 * (level0 + level1)
        score = -(middle + jnp.exp(-level) * (u1 - u0) / angle_between(level0, level1))
        by_path, by_trace = jnp.vdot(score, error_u), self.combine(error_estimates)
        # Errors of entries that cancel by chance are not taken for small.
        nats = jnp.maximum(jnp.abs(by_path + by_trace), jnp.sqrt(jnp.sum((score * error_u) ** 2)))
        # What single precision leaves of an error estimate is a share of what the step changes.
        change = jnp.abs(jnp.vdot(score, scale1 * (z1 - z0))) + jnp.abs(self.combine(estimates1 - estimates0))
        allowed = self.atol * max(1, u0.size / 1000) + 3 * jnp.finfo(u0.dtype).eps * change
        # What is narrower than a step may show in none of its stages.
        by_length = (_length(level0, level1) / self.largest_step) ** _ORDER
        by_z = self.norm(error_z / (self.atol + self.rtol * jnp.maximum(jnp.abs(z0), jnp.abs(z1))))
        # One number, which the controller divides by atol again.
        zero = jnp.zeros_like(nats)
        return zero, zero, self.atol * jnp.maximum(jnp.maximum(by_z, by_length), nats / allowed)
