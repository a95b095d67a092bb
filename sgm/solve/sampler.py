"""Samplers that step from one noise level to the next by a rule of their own, each a Diffrax solver."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, Estimate, estimate_of
from sgm.nn.condition import Condition
from sgm.sde.base import AbstractSDE
from sgm.solve.brownian import GridBrownianPath
from sgm.solve.grid import AbstractGrid, FixedSteps
from sgm.solve.method import AbstractMethod
from sgm.solve.terms import AbstractUniversalEquation
from sgm.types import Example, Scalar

Predict = Callable[[Scalar, Example], Estimate]


class AbstractSampler(AbstractMethod):
    """A method whose step is a formula in the model's estimates, on the universal path u.

    Levels are l = log tan(theta). A new sampler is a subclass with `advance`, which Diffrax calls once a step.
    """

    def __check_init__(self):
        check_instance(type(self).__name__, "grid", self.grid, AbstractGrid, "sgm.solve.LogSNRGrid()")

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many steps."""

    @property
    @abstractmethod
    def grid(self) -> AbstractGrid:
        """Where they lie."""

    @property
    def draws(self) -> int:
        """Standard normal draws of the shape of an example that each step takes."""
        return 0

    def memory(self, u: Example) -> PyTree[Array]:
        """What the first step finds of steps before."""
        return None

    @abstractmethod
    def advance(
        self,
        predict: Predict,
        t: Scalar,
        s: Scalar,
        u: Example,
        noise: Float[Array, "draws *shape"],
        memory: Any,
    ) -> tuple[Example, Any]:
        """u at level `s`, from `u` at the higher level `t`, and the memory for the next step.

        `predict(level, u)` evaluates the model; `noise` are this step's draws.
        """

    @property
    def solver(self):
        return _Advance(self)

    @property
    def stepping(self):
        return FixedSteps(self.steps, self.grid)

    def equation(self, sde, model, cond):
        return _Estimates(sde, model, cond, self.draws)


class _Estimates(AbstractUniversalEquation):
    """The model's estimates along the universal path, on the clock -l = -log tan(theta)."""

    sde: AbstractSDE
    model: AbstractModel
    cond: Condition | None
    draws: int = eqx.field(static=True)

    def clock(self, level):
        return jnp.negative(level)

    def level(self, clock):
        return jnp.negative(clock)

    def drift(self, clock, state, args):
        return estimate_of(self.model, jnp.negative(clock), state, self.cond)

    def terms(self, path):
        assert isinstance(path, GridBrownianPath)  # A sampler has fixed steps.
        shape = jax.ShapeDtypeStruct((self.draws, *path.shape.shape), path.shape.dtype)
        return _Term(self, dataclasses.replace(path, shape=shape))


class _Term(diffrax.AbstractTerm):
    """Estimates for a vector field, and standard normal draws for a control; `_Advance` puts them together."""

    equation: _Estimates
    path: GridBrownianPath

    def vf(self, t, y, args):
        return self.equation.drift(t, y, args)

    def contr(self, t0, t1, **kwargs):
        return self.path.normal(t0, t1)

    def prod(self, vf, control):
        raise NotImplementedError("A sampler's step is no product of a vector field and a control.")


class _Advance(diffrax.AbstractItoSolver):
    sampler: AbstractSampler
    term_structure: ClassVar = _Term
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms):
        return 1

    def init(self, terms, t0, t1, y0, args):
        return self.sampler.memory(y0)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        def predict(level, u):
            return terms.vf(jnp.negative(level), u, args)

        noise = terms.contr(t0, t1)
        y1, memory = self.sampler.advance(predict, jnp.negative(t0), jnp.negative(t1), y0, noise, solver_state)
        return y1, None, {"y0": y0, "y1": y1}, memory, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)
