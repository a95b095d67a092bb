"""What a method of sampling is, and how it solves its equation by Diffrax."""

from abc import abstractmethod
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, check_process, estimate_of
from sgm.nn.condition import Condition
from sgm.nn.units import Units
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL
from sgm.solve.brownian import GridBrownianPath
from sgm.solve.controllers import GridController, NoiseController
from sgm.solve.grid import FixedSteps
from sgm.solve.sampling import AbstractSamplingMethod
from sgm.solve.saving import check_saveat, frames, on_clock, saved_levels, union
from sgm.solve.terms import AbstractEquation, AbstractStochasticEquation

MAX_ADAPTIVE_STEPS = 4096
FIRST_STEP = 0.01  # of the clock's way
_SHORT_STEP = 0.01  # of the level


class AbstractMethod(AbstractSamplingMethod[AbstractSDE, AbstractModel]):
    """A way to sample: an equation, a Diffrax solver, and where it steps (a controller, or fixed steps on a grid)."""

    def __check_init__(self):
        name, kind = type(self).__name__, diffrax.AbstractStepSizeController | FixedSteps
        check_instance(name, "solver", self.solver, diffrax.AbstractSolver, "diffrax.Heun()")
        check_instance(name, "stepping", self.stepping, kind, "sgm.solve.FixedSteps(100)")

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

    def process(self, sde):
        check_process(type(self).__name__, sde, "the method sgm.CategoricalAncestral() (in an experiment the sampler)")
        return self.stepping.process(sde) if isinstance(self.stepping, FixedSteps) else sde

    def check(self, sde):
        pass

    def check_options(self, sde, saveat, adjoint):
        if saveat is not None:
            check_saveat(sde, saveat)
        if adjoint is not None:
            self.check_adjoint(adjoint)

    def check_adjoint(self, adjoint: diffrax.AbstractAdjoint) -> None:
        """Raise ValueError for a way to differentiate that it cannot take."""
        if isinstance(adjoint, diffrax.BacksolveAdjoint):
            raise ValueError(
                f"sample: BacksolveAdjoint cannot take {type(self).__name__} backwards; pass "
                "diffrax.RecursiveCheckpointAdjoint(), or method=sgm.ProbabilityFlow() with an adaptive controller."
            )

    def levels(self, sde, saveat=None):
        if not isinstance(self.stepping, FixedSteps):
            return None
        with jax.ensure_compile_time_eval():
            return union(sde, self.stepping.levels(sde), saveat)

    def draw(self, sde, model, cond, key, x1, saveat, adjoint, progress, *, levels, from_pure_noise):
        path, steps, finished = self.solve(
            self.equation(sde, model, cond),
            jnp.asarray(x1, jnp.result_type(float)),
            key,
            diffrax.SaveAt(t0=True) if saveat is None else saveat,
            adjoint,
            progress,
            levels=levels,
            from_pure_noise=from_pure_noise,
            units=None if saveat is None else model.units,
        )
        return (_denoised_end(sde, model, path[-1], cond) if saveat is None else path), steps, finished

    def solve(
        self,
        equation: AbstractEquation,
        x1: Float[Array, "*shape"],
        key: PRNGKeyArray,
        saveat: diffrax.SaveAt,
        adjoint: diffrax.AbstractAdjoint,
        progress: diffrax.AbstractProgressMeter = diffrax.NoProgressMeter(),
        *,
        levels: Float[Array, " levels"] | None = None,
        from_pure_noise: bool | None = False,
        units: Units | None = None,
    ) -> tuple[PyTree[Float[Array, "..."]], Int[Array, ""], Bool[Array, ""]]:
        """What `saveat`, in the process's time, asks of the path x that starts from `x1` at t1 and ends at t0.

        - `levels`: those of `self.levels(sde, saveat)`.
        - `from_pure_noise`: whether the level at t1 is infinite, so that the first step takes `x1` for noise alone;
          None where that is not known before the solve.
        - `units`: those in which the path is saved; None for standardised coordinates.

        Returns what is asked for, nan where the solve did not finish; the number of steps; and whether it finished.
        """
        sde, start_state = equation.sde, x1 / equation.scale(equation.sde.t1)
        noise = jax.ShapeDtypeStruct(x1.shape, x1.dtype)
        levy_area = _levy_area(self.solver)
        controller: Any
        if isinstance(self.stepping, FixedSteps):
            levels = self.levels(sde, saveat) if levels is None else levels
            assert levels is not None
            if from_pure_noise:
                levels = levels[1:]
                start_state = equation.from_noise(levels[0], x1 / sde.rho(sde.t1))
            elif from_pure_noise is None:
                # As many steps either way: from pure noise, the first is a short one.
                infinite, below = jnp.isinf(levels[0]), levels[1] + _SHORT_STEP
                levels = levels.at[0].set(jnp.where(infinite, below, levels[0]))
                from_noise = equation.from_noise(below, x1 / sde.rho(sde.t1))
                start_state = jnp.where(infinite, from_noise, start_state)
            ts = equation.clock(levels)
            start, end, first_step, precision = ts[0], ts[-1], None, None
            controller, max_steps = GridController(ts), len(levels) - 1
            path = GridBrownianPath(ts=ts, shape=noise, key=key, levy_area=levy_area)
        else:
            ends = jnp.stack([jnp.minimum(sde.level(sde.t1), LARGEST_LEVEL), sde.level(sde.t0)])
            levels, (start, end) = ends, equation.clock(ends)
            start, end = (jnp.asarray(end, x1.dtype) for end in (start, end))
            if isinstance(equation, AbstractStochasticEquation):
                # A Brownian path cannot be differentiated by its ends; the clock's do not depend on the process.
                start, end = jax.lax.stop_gradient((start, end))
            # Adaptive steps need the digits that TF32 matrix products would take.
            first_step, max_steps, precision = FIRST_STEP * (end - start), MAX_ADAPTIVE_STEPS, "highest"
            controller = self._controller(equation, saveat, start, end, first_step)
            if controller is not self.stepping:
                first_step = None  # The controller has it.
            path = diffrax.VirtualBrownianTree(start, end, 1e-4 * (end - start), noise, key, levy_area)
        with jax.default_matmul_precision(precision):
            solution = diffrax.diffeqsolve(
                equation.terms(path),
                self.solver,
                start,
                end,
                first_step,
                start_state,
                stepsize_controller=controller,
                saveat=on_clock(saveat, equation, levels, not isinstance(self.stepping, FixedSteps), units),
                adjoint=adjoint,
                progress_meter=progress,
                max_steps=max_steps,
                throw=False,
            )
        finished = diffrax.is_successful(solution.result)
        saved = frames(saveat, equation, solution, x1, from_pure_noise, units)
        saved = jax.tree.map(
            lambda leaf: jnp.where(finished, leaf, jnp.nan) if eqx.is_inexact_array(leaf) else leaf, saved
        )
        return saved, solution.stats["num_accepted_steps"], finished

    def _controller(self, equation, saveat, start, end, first_step):
        """The adaptive controller, by the noise of the level; with noise, it steps to the saved times."""
        assert isinstance(self.stepping, diffrax.AbstractStepSizeController)
        if not isinstance(self.stepping, diffrax.AbstractAdaptiveStepSizeController):
            return self.stepping
        controller = NoiseController(self.stepping, equation, first_step)
        wanted = saved_levels(equation.sde, saveat)
        if not isinstance(equation, AbstractStochasticEquation) or not len(wanted):
            return controller
        ts = jnp.clip(jnp.asarray(equation.clock(wanted), start.dtype), start, end)
        return diffrax.ClipStepSizeController(controller, step_ts=ts)


def _denoised_end(sde, model, x, cond):
    """E[x0 | x] of the end of a path in standardised coordinates, in the data's units."""
    level = jnp.asarray(sde.level(sde.t0), x.dtype)
    return model.units.restore(estimate_of(model, level, x / sde.rho(sde.t0), cond).denoised)


def _levy_area(solver):
    needed = getattr(solver, "minimal_levy_area", diffrax.AbstractBrownianIncrement)
    has_area = issubclass(needed, diffrax.AbstractSpaceTimeLevyArea)
    return diffrax.SpaceTimeLevyArea if has_area else diffrax.BrownianIncrement
