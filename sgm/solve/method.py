from abc import abstractmethod

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from sgm.checks import check_time
from sgm.model.base import AbstractModel
from sgm.model.condition import Condition
from sgm.sde.base import AbstractSDE
from sgm.solve.brownian import GridBrownianPath
from sgm.solve.grid import FixedSteps
from sgm.solve.terms import AbstractEquation

MAX_ADAPTIVE_STEPS = 4096


class AbstractMethod(eqx.Module):
    """A way to sample: an equation, a Diffrax solver, and where it steps (a controller, or fixed steps on a grid)."""

    @property
    @abstractmethod
    def solver(self) -> diffrax.AbstractSolver:
        """The Diffrax solver."""

    @property
    @abstractmethod
    def stepping(self) -> diffrax.AbstractStepSizeController | FixedSteps:
        """Where it steps."""

    @abstractmethod
    def equation(self, sde: AbstractSDE, model: AbstractModel, cond: Condition | None) -> AbstractEquation:
        """What is solved for one example."""

    def check(self, sde: AbstractSDE) -> None:
        """Raise ValueError for a process that it cannot sample."""

    def solve(
        self,
        equation: AbstractEquation,
        x1: Float[Array, "*shape"],
        key: PRNGKeyArray,
        saveat: diffrax.SaveAt,
        adjoint: diffrax.AbstractAdjoint,
        progress: diffrax.AbstractProgressMeter,
    ) -> PyTree[Float[Array, "..."]]:
        """What `saveat`, in the process's time, asks of the path x that starts from `x1` at t1 and ends at t0."""
        sde = equation.sde
        noise = jax.ShapeDtypeStruct(x1.shape, x1.dtype)
        levy_area = _levy_area(self.solver)
        if isinstance(self.stepping, FixedSteps):
            ts = equation.clock(self.stepping.times(sde))
            start, end = ts[0], ts[-1]
            controller, max_steps, precision = diffrax.StepTo(ts), self.stepping.steps, None
            path = GridBrownianPath(ts=ts, shape=noise, key=key, levy_area=levy_area)
        else:
            start, end = equation.clock(sde.t1), equation.clock(sde.t0)
            # Adaptive steps need the digits that TF32 matrix products would take.
            controller, max_steps, precision = self.stepping, MAX_ADAPTIVE_STEPS, "highest"
            path = diffrax.VirtualBrownianTree(start, end, 1e-4 * (end - start), noise, key, levy_area)
        with jax.default_matmul_precision(precision):
            solution = diffrax.diffeqsolve(
                equation.terms(path),
                self.solver,
                start,
                end,
                None,
                x1 / equation.scale(sde.t1),
                stepsize_controller=controller,
                saveat=diffrax.SaveAt(subs=_map_subs(lambda sub: _on_clock(sub, equation, start, end), saveat)),
                adjoint=adjoint,
                progress_meter=progress,
                max_steps=max_steps,
            )
        return solution.ys


def check_saveat(sde: AbstractSDE, saveat: diffrax.SaveAt) -> None:
    """Raise unless `saveat` asks for states of the path, at decreasing times within [t0, t1]."""
    if saveat.dense or saveat.solver_state or saveat.controller_state or saveat.made_jump:
        raise ValueError("sample: saveat asks for dense output or internal states; ask for ts, t0, t1 or steps.")
    for sub in _subs(saveat):
        if sub.ts is not None and not isinstance(sub.ts, Tracer):
            check_time("sample: saveat", sde, sub.ts)
            if not np.all(np.diff(np.asarray(sub.ts, float)) < 0):
                raise ValueError(
                    f"sample: the times of saveat go from {sub.ts[0]} to {sub.ts[-1]}; "
                    "pass decreasing ones, since a sample goes from t1 to t0."
                )


def _subs(saveat):
    return jax.tree.leaves(saveat.subs, is_leaf=lambda node: isinstance(node, diffrax.SubSaveAt))


def _levy_area(solver):
    needed = getattr(solver, "minimal_levy_area", diffrax.AbstractBrownianIncrement)
    has_area = issubclass(needed, diffrax.AbstractSpaceTimeLevyArea)
    return diffrax.SpaceTimeLevyArea if has_area else diffrax.BrownianIncrement


def _map_subs(function, saveat):
    return jax.tree.map(function, saveat.subs, is_leaf=lambda node: isinstance(node, diffrax.SubSaveAt))


def _on_clock(sub, equation, start, end):
    """`sub`, written in process time and x, for the equation's clock and state; the ends change places."""

    def in_process(clock, state, args):
        t = jnp.clip(equation.time(clock), equation.sde.t0, equation.sde.t1)
        return sub.fn(t, state * equation.scale(t), args)

    # Clipped, since the clock of an end may round differently among other times than alone.
    ts = None if sub.ts is None else jnp.clip(equation.clock(sub.ts), start, end)
    return diffrax.SubSaveAt(t0=sub.t1, t1=sub.t0, ts=ts, steps=sub.steps, fn=in_process)
