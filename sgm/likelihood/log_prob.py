"""The log-density of a model by the instantaneous change of variables along its probability flow.

log p(x at t0) = log p(x at t1) + D log(rho(t1) / rho(t0)) + integral of div v from theta(t0) to theta(t1)
"""

import math
from typing import Any, Literal, Protocol, overload, runtime_checkable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.checks import check_examples
from sgm.likelihood.trace import AbstractTrace, Hutchinson, field_and_products
from sgm.model.base import AbstractModel
from sgm.model.condition import Condition, flat_condition
from sgm.sde.base import AbstractSDE

MAX_STEPS = 4096
FIRST_STEP = 0.01  # radians


@runtime_checkable
class Density(Protocol):
    """A density of x at t1, such as `sde.prior` or an exact model's `marginal(sde, sde.t1)`."""

    def log_prob(self, x: Array) -> Array: ...


class LogProb(eqx.Module):
    """What `log_prob(..., full=True)` returns, each with the batch axes of x.

    - `value`: log p(x) in nats; nan where the solve did not finish.
    - `stderr`: the standard error of `value` from the trace's probes, in nats.
    - `latent`: x carried to t1 by the probability flow.
    - `nfe`: evaluations of the velocity and its divergence.
    - `result`: `diffrax.RESULTS`, successful or the reason why not.
    """

    value: Float[Array, "*batch"]
    stderr: Float[Array, "*batch"]
    latent: Float[Array, "..."]
    nfe: Int[Array, "*batch"]
    result: diffrax.RESULTS


@overload
def log_prob(sde, model, x, key=None, *, full: Literal[True], **options: Any) -> LogProb: ...
@overload
def log_prob(sde, model, x, key=None, *, full: Literal[False] = False, **options: Any) -> Array: ...
def log_prob(  # pyright: ignore[reportInconsistentOverload]  # The overloads leave out what is common to both.
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array, "..."],
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Hutchinson(),
    controller: diffrax.AbstractAdaptiveStepSizeController = diffrax.PIDController(rtol=1e-5, atol=1e-5),
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: bool = False,
) -> Float[Array, "*batch"] | LogProb:
    """log p(x) at t0 in nats, for one example of shape `model.shape` or a batch with any leading axes.

    - `key`: for random probes; each example draws its own.
    - `cond`: one condition for all examples, or one each.
    - `trace`: how the divergence is found, `Hutchinson(count)` or `Exact()`.
    - `controller`: the adaptive step size controller of the Tsit5 solve, in which each example has steps of its own.
    - `prior`: the density of x at t1 in place of `sde.prior`.
    - `adjoint`: how the result is differentiated, by default `diffrax.RecursiveCheckpointAdjoint()`.
    - `full`: return a `LogProb` with the standard error, the latent, the evaluations and the solver's result.

    Source: Chen et al. 2018 (arXiv:1806.07366); Song et al. 2021 (arXiv:2011.13456, appendix D.2).
    """
    batch = check_examples("log_prob", x, model.shape)
    trace.check_key(key)
    cond, cond_axis = flat_condition("log_prob", model, cond, batch)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    prior = sde.prior if prior is None else prior
    result = _log_prob(sde, model, x, key, cond, cond_axis, trace, controller, prior, adjoint, batch)
    return result if full else result.value


@eqx.filter_jit
def _log_prob(sde, model, x, key, cond, cond_axis, trace, controller, prior, adjoint, batch):
    n = math.prod(batch)
    x = x.reshape(n, *model.shape)
    keys = None if key is None else jr.split(key, n)

    def one(x, key, cond):
        return _log_prob_one(sde, model, x, key, cond, trace, controller, prior, adjoint)

    # Adaptive steps need the digits that TF32 matrix products would take.
    with jax.default_matmul_precision("highest"):
        results = jax.vmap(one, in_axes=(0, 0 if keys is not None else None, cond_axis))(x, keys, cond)
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), results)


def _log_prob_one(sde, model, x, key, cond, trace, controller, prior, adjoint):
    # In the precision of x: Diffrax would promote the state to that of the times.
    start, end, scale0, scale1 = (part(t).astype(x.dtype) for part in (sde.theta, sde.rho) for t in (sde.t0, sde.t1))
    u0 = x / scale0
    probes = trace.probes(key, u0)
    no_change = jnp.zeros_like(trace.estimates(jnp.zeros(len(probes), u0.dtype)))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_FlowAndDivergence(model, cond, trace)),
        diffrax.Tsit5(),
        start,
        end,
        FIRST_STEP,
        (u0, no_change),
        args=probes,
        stepsize_controller=controller,
        adjoint=adjoint,
        max_steps=MAX_STEPS,
        throw=False,
    )
    u1, changes = jax.tree.map(lambda leaf: leaf[-1], solution.ys)
    latent = scale1 * u1
    change, stderr = trace.combine(changes)
    stretch = x.size * (jnp.log(scale1) - jnp.log(scale0))
    value = prior.log_prob(latent) + stretch + change
    return LogProb(
        value=jnp.where(solution.result == diffrax.RESULTS.successful, value, jnp.nan),
        stderr=stderr,
        latent=latent,
        nfe=_evaluations(solution.stats["num_steps"]),
        result=solution.result,
    )


class _FlowAndDivergence(eqx.Module):
    """(u, log-density) -> (velocity, estimates of its divergence)."""

    model: AbstractModel
    cond: Condition | None
    trace: AbstractTrace

    def __call__(self, theta, state, probes):
        u, _ = state
        velocity, products = field_and_products(lambda u: self.model.predict(theta, u, self.cond).velocity, u, probes)
        return velocity, self.trace.estimates(products)


def _evaluations(steps):
    """Of Tsit5: six a step, accepted or not, and one at the start."""
    return 6 * steps + 1
