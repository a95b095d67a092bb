"""Draws of the probability flow with their log-densities, by one solve."""

import math
from typing import Literal, SupportsIndex, overload

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_count, check_instance, check_key, trace_floats, trace_process
from sgm.likelihood.flow import FlowAndDivergence, evaluations
from sgm.likelihood.log_prob import TOLERANCE, LogProb, each_its_own, in_units
from sgm.likelihood.together import solve_together
from sgm.likelihood.trace import AbstractTrace, Hutchinson
from sgm.model.base import AbstractModel, check_process_and_model, check_pure_noise
from sgm.model.per_example import separate
from sgm.nn.condition import Condition, check_density, check_values, flat_condition
from sgm.parallel.devices import mesh_for, replicate
from sgm.parallel.spread import in_groups, spread
from sgm.sde.base import AbstractSDE


@overload
def sample_and_log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[False] = False,
    mesh: Mesh | None = None,
) -> tuple[Array, Array]: ...
@overload
def sample_and_log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[True],
    mesh: Mesh | None = None,
) -> tuple[Array, LogProb]: ...
def sample_and_log_prob(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: bool = False,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "..."] | LogProb]:
    """Draw examples by the probability flow, with log p of each.

    Arguments:
        sde: Process.
        model: Model.
        key: Key of all randomness; the same key starts from the same noise as in `sgm.sample`.
        n: Number of examples; None for one example without a batch axis.
        cond: One condition for all examples, or one each.
        trace, solver, controller, adjoint: As those of `sgm.log_prob`.
        full: Whether a `LogProb` is returned in the place of log p.
        mesh: Devices over which the examples are spread, by default all of this process's.

    Returns:
        x at t0 in the data's units, of shape (n, *model.shape), not denoised; and log p(x at t0) in nats, of shape
        (n,), nan where the solve did not finish.

    Raises:
        ValueError: for n < 1, a condition of another batch, or random probes of a shape that they do not fit.

    Example:
        >>> x, log_p = sgm.sample_and_log_prob(sgm.VP(), model, jax.random.key(0), 64, trace=sgm.Exact())
        >>> x.shape, log_p.shape
        ((64, 2), (64,))
    """
    call = "sample_and_log_prob"
    check_process_and_model(call, sde, model)
    check_instance(call, "trace", trace, AbstractTrace, "sgm.Exact() or sgm.Hutchinson(count=4)")
    check_instance(call, "solver", solver, diffrax.AbstractERK, "diffrax.Dopri5()")
    kind = diffrax.AbstractAdaptiveStepSizeController | None
    check_instance(call, "controller", controller, kind, "diffrax.PIDController(rtol=1e-5, atol=1e-5)")
    check_instance(call, "adjoint", adjoint, diffrax.AbstractAdjoint | None, "diffrax.DirectAdjoint()")
    check_key(call, key)
    count = None if n is None else check_count(call, "n", n)
    check_pure_noise(call, sde, model)
    trace.check(key, model.shape)
    batch = () if count is None else (count,)
    cond, cond_axis = flat_condition(call, model, cond, batch)
    check_values(call, cond)
    check_density(call, cond)
    controller = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE) if controller is None else controller
    units = model.units
    model, cond, own = separate(call, model, cond, cond_axis, count)
    sde, model, controller = trace_process(sde), *trace_floats((model, controller))
    keys = key[None] if count is None else jr.split(key, count)
    mesh = mesh_for(call, (sde, model, keys, own, cond), mesh)
    sde, model, keys, own, cond = replicate((sde, model, keys, own, cond), mesh)
    x, result = _draw((sde, model, cond, controller), (keys, own), trace, solver, adjoint, mesh)
    x, result = units.restore(x), in_units(result, units, model.shape)
    x, result = jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), (x, result))
    return x, (result if full else result.value)


@eqx.filter_jit
def _draw(shared, each, trace, solver, adjoint, mesh):
    def of_batch(shared, each):
        sde, model, cond, controller = shared
        flow = FlowAndDivergence(model, cond, trace, to_data=True)

        def start(key, own):
            key_prior, key_trace = jr.split(key)
            x1 = sde.prior.sample(key_prior, model.shape)
            return x1, *flow.path(sde, own, x1 / jnp.asarray(sde.rho(sde.t1), x1.dtype), key_trace)

        def of_group(each):
            keys, own = each
            x1, paths, states = jax.vmap(start)(keys, own)
            controllers = each_its_own(controller, None, len(x1))
            outcome = solve_together(flow, paths, states, solver, controllers, adjoint)
            u0, changes = jax.vmap(lambda path, state: flow.carried(sde, path, state))(paths, outcome.state)
            return jax.vmap(of_one)(x1, u0, *changes, outcome)

        def of_one(x1, u0, change, stderr, dof, outcome):
            scale0, scale1 = (jnp.asarray(sde.rho(t), x1.dtype) for t in (sde.t0, sde.t1))
            value = sde.prior.log_prob(x1) + math.prod(x1.shape) * (jnp.log(scale1) - jnp.log(scale0)) - change
            finished = outcome.result == diffrax.RESULTS.successful
            result = LogProb(
                value=jnp.where(finished, value, jnp.nan),
                stderr=jnp.where(finished, stderr, jnp.nan),
                dof=dof,
                latent=x1,
                nfe=evaluations(solver, outcome.steps),
                result=outcome.result,
            )
            return scale0 * u0, result

        # Adaptive steps need the digits that TF32 matrix products would take.
        with jax.default_matmul_precision("highest"):
            return in_groups(of_group, each, trace.examples(model.shape))

    return spread(of_batch, shared, each, mesh)
