"""The log-density of a model by the instantaneous change of variables along its probability flow.

log p(x at t0) = log p(x at t1) + D log(rho(t1) / rho(t0)) + integral of div v from theta(t0) to theta(t1)
"""

import dataclasses
from typing import Any, Literal, Protocol, overload, runtime_checkable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sgm.checks import check_concrete, check_instance, trace_floats, warn_of_scale
from sgm.likelihood.accuracy import check_accuracy, to_accuracy, warn_of_missed
from sgm.likelihood.flow import Course, FlowAndDivergence, evaluations
from sgm.likelihood.prepare import prepare
from sgm.likelihood.prior_mismatch import FEWEST, warn_of_mismatch
from sgm.likelihood.together import solve_together
from sgm.likelihood.trace import AbstractTrace, Hutchinson
from sgm.model.base import AbstractModel, check_process_and_model
from sgm.nn.condition import Condition
from sgm.nn.units import Units
from sgm.parallel.devices import replicate
from sgm.parallel.spread import in_groups, spread
from sgm.sde.base import AbstractSDE

TOLERANCE = 1e-4
# Single precision leaves an error of this many units of the terms' last places (`tests/likelihood/test_widths.py`).
_ROUNDING = 16


@runtime_checkable
class Density(Protocol):
    """A density of x at t1, such as `sde.prior` or an exact model's `marginal(sde, sde.t1)`."""

    def log_prob(self, x: Array) -> Array: ...


class LogProb(eqx.Module):
    """What `log_prob(..., full=True)` returns, each with the batch axes of x.

    - `value`: log p(x) in nats; nan where the solve did not finish.
    - `stderr`: the standard error of `value` from the trace's probes, in nats; 0 for an exact trace, nan like `value`.
    - `dof`: the degrees of freedom of Student's t with which `stderr` is known.
    - `latent`: x carried to t1 by the probability flow, in the process's own coordinates: the data's are distributed as
      `sde.prior`.
    - `nfe`: evaluations of the velocity and its divergence, of all solves.
    - `result`: `diffrax.RESULTS`, successful or the reason why not.
    - `solver_error`: an estimate of the error of the solver and of rounding, in nats; None unless `accuracy` was asked
      for.
    - `converged`: whether (stderr^2 + solver_error^2)^(1/2) is within the accuracy; None unless one was asked for. It
      says nothing of what the prior at t1 is off by (see `prior_mismatch`).

    Example:
        >>> result = sgm.log_prob(sde, model, x, key, trace=sgm.Hutchinson(8), full=True)
        >>> log_p, spread = result.value, result.stderr
        >>> low, high = result.interval(0.95)
    """

    value: Float[Array, "*batch"]
    stderr: Float[Array, "*batch"]
    dof: Float[Array, "*batch"]
    latent: Float[Array, "..."]
    nfe: Int[Array, "*batch"]
    result: diffrax.RESULTS
    solver_error: Float[Array, "*batch"] | None = None
    converged: Bool[Array, "*batch"] | None = None

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the interval of Student's t around `value`, widened by the solver's error where it is known."""
        from scipy import stats  # here, because it takes a second to import

        check_concrete("interval", confidence=confidence)
        reach = stats.t.ppf(0.5 + confidence / 2, np.asarray(self.dof)) * np.asarray(self.stderr)
        if self.solver_error is not None:
            reach = reach + np.asarray(self.solver_error)
        return np.asarray(self.value) - reach, np.asarray(self.value) + reach


@overload
def log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[False] = False,
    mesh: Mesh | None = None,
) -> Array: ...
@overload
def log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[True],
    mesh: Mesh | None = None,
) -> LogProb: ...
@overload
def log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: bool,
    mesh: Mesh | None = None,
) -> Array | LogProb: ...
def log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    accuracy: float | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "*batch"] | LogProb:
    """log p(x) at t0 in nats, for one example of shape `model.shape` or a batch with any leading axes.

    Arguments:
        sde: Process.
        model: Model.
        x: Examples at t0, in the data's units, of shape `(*batch, *model.shape)`.
        key: Key of random probes. Each example draws its own.
        cond: One condition for all examples, or one each.
        trace: Estimator of the divergence: `Exact()`, `Hutchinson(count)`, `Probing(strides)`.
        solver: Explicit Runge-Kutta method of Diffrax. Each example has steps of its own.
        controller: Adaptive step size controller, by default `diffrax.PIDController(rtol=1e-4, atol=1e-4)`. Its `atol`
            is also the error of a step in nats, times D / 1000 where that is larger (see `sgm.solve.controllers`).
        accuracy: Standard error in nats of the solver and the probes together. For each example, tolerances and the
            number of probes are chosen by it (see `to_accuracy`). Values are looked at to choose, so that neither
            `jax.jit` nor `jax.grad` can go through.
        prior: Density of x at t1, in the process's own coordinates, in place of `sde.prior`.
        adjoint: Way of Diffrax to differentiate each solve by itself, such as `diffrax.ForwardMode()`. By default those
            of a batch are differentiated together, backwards.
        full: Whether a `LogProb` is returned, with error bars, latents, evaluations and the solver's results.
        mesh: Devices over which a batch is spread, by default all of this process's; not inside `jax.jit` or
            `jax.grad`.

    Returns:
        log p(x) of each example, in nats, nan where the solve did not finish, whose gradient is 0; or a `LogProb`.

    Raises:
        ValueError: for entries of x that are not finite, for examples or a condition of other shapes than the model's,
            and for a missing key.

    Example:
        >>> log_p = sgm.log_prob(sgm.VP(), model, x, trace=sgm.Exact())  # random probes would need a key
        >>> log_p.shape
        (8,)

    Reference: Chen et al. 2018 (arXiv:1806.07366); Song et al. 2021 (arXiv:2011.13456, appendix D.2).
    """
    check_process_and_model("log_prob", sde, model)
    check_instance("log_prob", "trace", trace, AbstractTrace, "sgm.Exact() or sgm.Hutchinson(count=4)")
    check_instance("log_prob", "solver", solver, diffrax.AbstractERK, "diffrax.Dopri5()")
    kind = diffrax.AbstractAdaptiveStepSizeController | None
    check_instance("log_prob", "controller", controller, kind, "diffrax.PIDController(rtol=1e-5, atol=1e-5)")
    check_instance("log_prob", "prior", prior, Density | None, "sde.prior")
    check_instance("log_prob", "adjoint", adjoint, diffrax.AbstractAdjoint | None, "diffrax.DirectAdjoint()")
    units = model.units
    sde, model, x, keys, own, cond, mesh, batch = prepare("log_prob", sde, model, x, key, cond, mesh)
    trace.check(key, model.shape)
    if prior is None and len(x) >= FEWEST:
        warn_of_mismatch("log_prob", sde, x)
    else:
        warn_of_scale("log_prob", x)
    prior, controller = replicate(trace_floats((sde.prior if prior is None else prior, controller)), mesh)

    def solve(trace, rows, keys, tolerance=None, solver=solver, course=Course()):
        x_rows, own_rows = jax.tree.map(lambda part: part[rows], (x, own))
        each = x_rows, own_rows, keys, tolerance
        return log_prob_of_each(sde, model, each, cond, trace, solver, controller, prior, adjoint, mesh, course)

    if accuracy is None:
        controller = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE) if controller is None else controller
        result = solve(trace, slice(None), keys)
    else:
        check_accuracy(accuracy, controller, (sde, model, x, keys, own, cond))
        result = to_accuracy(solve, solver, trace, accuracy, keys, len(x), model.shape)
        if not full:
            warn_of_missed("log_prob", result.converged, accuracy)
    result = in_units(result, units, model.shape)
    result = jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), result)
    return result if full else result.value


def in_units(result: LogProb, units: Units, shape: tuple[int, ...]) -> LogProb:
    """The log-density of standardised examples as that of the same examples in their units."""
    volume = jnp.asarray(units.log_volume(shape), result.value.dtype)
    value, error = result.value - volume, result.solver_error
    rounding = jnp.finfo(value.dtype).eps * jnp.abs(volume)
    return dataclasses.replace(result, value=value, solver_error=None if error is None else error + rounding)


@eqx.filter_jit
def log_prob_of_each(
    sde: AbstractSDE,
    model: AbstractModel,
    each: Any,
    cond: Condition | None,
    trace: AbstractTrace,
    solver: diffrax.AbstractERK,
    controller: diffrax.AbstractAdaptiveStepSizeController | None,
    prior: Any,
    adjoint: diffrax.AbstractAdjoint | None,
    mesh: Mesh | None,
    course: Course,
) -> LogProb:
    """The `LogProb` of standardised examples whose arguments are checked.

    Of each there is in `each`: the example, what of the model and the condition is its own, its key and its tolerance,
    both of which may be None.
    """

    def of_batch(shared, each):
        sde, model, cond, controller, prior = shared
        flow = FlowAndDivergence(model, cond, trace, to_data=False, course=course)
        scale0, scale1 = (jnp.asarray(sde.rho(t), each[0].dtype) for t in (sde.t0, sde.t1))

        def of_group(each):
            x, own, keys, tolerances = each
            controllers = each_its_own(controller, tolerances, len(x))
            paths, states = jax.vmap(lambda x, own, key: flow.path(sde, own, x / scale0, key))(x, own, keys)
            outcome = solve_together(flow, paths, states, solver, controllers, adjoint)
            u1, changes = jax.vmap(lambda path, state: flow.carried(sde, path, state))(paths, outcome.state)
            latent = scale1 * u1
            result = jax.vmap(of_one)(latent, *changes, outcome)
            return result if tolerances is not None else dataclasses.replace(result, solver_error=None)

        def of_one(latent, change, stderr, dof, outcome):
            finished = outcome.result == diffrax.RESULTS.successful
            known = jnp.where(finished, latent, 0)  # A nan would spoil the gradients of what all share.
            terms = jnp.stack([prior.log_prob(known), latent.size * (jnp.log(scale1) - jnp.log(scale0)), change])
            return LogProb(
                value=jnp.where(finished, jnp.sum(terms), jnp.nan),
                stderr=jnp.where(finished, stderr, jnp.nan),
                dof=dof,
                latent=latent,
                nfe=evaluations(solver, outcome.steps) + 1,  # One finds the reference.
                result=outcome.result,
                solver_error=_ROUNDING * jnp.finfo(latent.dtype).eps * jnp.sum(jnp.abs(terms)),
            )

        # Adaptive steps need the digits that TF32 matrix products would take.
        with jax.default_matmul_precision("highest"):
            return in_groups(of_group, each, trace.examples(model.shape))

    return spread(of_batch, (sde, model, cond, controller, prior), each, mesh)


def each_its_own(controller: Any, tolerances: Float[Array, " n"] | None, n: int) -> Any:
    """A controller for each of `n` examples, along a leading axis: the one that is given, or one of each tolerance."""
    if tolerances is not None:
        return eqx.filter_vmap(lambda tolerance: diffrax.PIDController(rtol=tolerance, atol=tolerance))(tolerances)
    arrays, rest = eqx.partition(controller, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n, *leaf.shape)), arrays), rest)
