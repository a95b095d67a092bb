"""The most likely example of a model."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from sgm.checks import (
    check_concrete,
    check_count,
    check_instance,
    check_positive,
    is_traced,
    trace_floats,
    trace_process,
)
from sgm.likelihood.log_prob import log_prob
from sgm.likelihood.trace import AbstractTrace, Exact
from sgm.model.base import AbstractModel, check_process_and_model
from sgm.model.uniform import Uniform
from sgm.nn.condition import Condition
from sgm.posterior.support import check_one_condition, check_support, sample_within
from sgm.sample import sample
from sgm.sde.base import AbstractSDE
from sgm.solve.euler_maruyama import EulerMaruyama
from sgm.solve.method import AbstractMethod

# In a box, no start is at an end, where the gradient of the sine is 0.
_MARGIN = 1e-3
# Share of the gain that the slope promises which a step must bring (Armijo's rule), but for errors of log p, in nats;
# and the shortest part of a step.
_GAIN = 1e-4
_NOISE = 1e-4
_SHORTEST = 1e-4


class Maximum(eqx.Module):
    """The most likely point that was found.

    Arguments:
        x: Point, of the shape of an example, in the data's units.
        log_prob: log p(x), in nats.
        slope: Norm of the gradient of log p there, in nats per standard deviation of the draws; within a support by its
            free coordinate w, in which it is 0 at an end whatever log p does there.
        converged: Whether `slope` is below the tolerance.

    Example:
        >>> best = sgm.posterior.maximum_a_posteriori(sde, model, key, starts=16, keep=1)  # a Maximum
        >>> round(float(best.log_prob), 2), bool(best.converged)  # -log(2 pi), of N(0, I)
        (-1.84, True)
    """

    x: Float[Array, "*batch_and_shape"]
    log_prob: Float[Array, "*batch"]
    slope: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]


def maximum_a_posteriori(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    *,
    cond: Condition | None = None,
    support: Uniform | None = None,
    starts: int = 256,
    keep: int = 4,
    steps: int = 50,
    tolerance: float = 1e-3,
    method: AbstractMethod = EulerMaruyama(),
    trace: AbstractTrace = Exact(),
    controller: diffrax.AbstractAdaptiveStepSizeController = diffrax.PIDController(rtol=1e-5, atol=1e-5),
    mesh: Mesh | None = None,
) -> Maximum:
    """Find the example of the largest log p(x), by L-BFGS from the likeliest of some draws of the model.

    The density is that of `sgm.log_prob`, and its gradient goes through the solve. It is for few dimensions: the
    likeliest image is nothing like an image.

    Arguments:
        sde: Process.
        model: Model.
        key: Key of all randomness.
        cond: One condition.
        support: Box within which the maximum is sought, which may lie at an end of it. x is centre + half width sin(w)
            there, and w is free.
        starts: Number of draws.
        keep: Number of those, the likeliest, from which log p is climbed; all of them where there are fewer.
        steps: Number of steps of L-BFGS, at most.
        tolerance: Norm of the gradient, as `Maximum.slope` has it, at which it stops.
        method: Method of sampling.
        trace: Trace estimator of log p.
        controller: Step size controller of log p.
        mesh: Devices over which the draws are spread.

    Returns:
        The likeliest of the `keep` points that were reached.

    Raises:
        TypeError: for arguments of other types, and counts that are not whole.
        ValueError: for a condition with batch axes, starts below 2, keep or steps below 1, a tolerance that is traced
            or not above 0, and a box of another shape or that holds too few of the draws.
        RuntimeError: where no log p is a number.

    Example:
        >>> prior = sgm.model.Uniform((0.5, -2.0), (2.0, 2.0))
        >>> best = maximum_a_posteriori(sde, model, key, support=prior, starts=16, keep=1)
        >>> best.x.shape, best.log_prob.shape  # the example, near (0.5, 0), and its log-density
        ((2,), ())

    Reference: Liu and Nocedal 1989 (doi:10.1007/BF01589116).
    """
    call = "maximum_a_posteriori"
    check_process_and_model(call, sde, model)
    check_instance(call, "support", support, Uniform | None, "sgm.model.Uniform(low, high)")
    if support is not None:
        check_support(call, support, model.shape)
    starts = check_count(call, "starts", starts, 2)
    keep, steps = min(check_count(call, "keep", keep), starts), check_count(call, "steps", steps)
    check_concrete(call, tolerance=tolerance)
    check_positive(call, "tolerance", tolerance)
    check_one_condition(call, model, cond)
    key_draws, key_trace = jr.split(key)
    options = {"cond": cond, "method": method, "mesh": mesh}
    if support is None:
        draws = sample(sde, model, key_draws, starts, **options)
    else:
        draws, _ = sample_within(sde, model, key_draws, starts, support, **options, round_size=starts)
    log_p = log_prob(sde, model, draws, key_trace, cond=cond, trace=trace, controller=controller, mesh=mesh)
    _, best = jax.lax.top_k(jnp.nan_to_num(log_p, nan=-jnp.inf), keep)
    traced = trace_process(sde), *trace_floats((model, controller, float(tolerance)))
    found = _climb(traced, cond, key_trace, trace, support, draws, draws[best], steps)
    if not is_traced(found) and not jnp.isfinite(found.log_prob):
        raise RuntimeError(
            f"{call}: log p is not finite at any of {keep} points; pass a model whose output is finite and smooth."
        )
    return found


@eqx.filter_jit
def _climb(traced, cond, key, trace, support, draws, points, steps):
    sde, model, controller, tolerance = traced
    to_x, to_free = _coordinates(support, draws)
    options = {"cond": cond, "trace": trace, "controller": controller, "adjoint": diffrax.ForwardMode()}
    memory = optax.scale_by_lbfgs()

    def value_and_slope(y):
        """log p and its gradient, found forwards: for few dimensions faster than backwards, also to compile."""
        slope, value = jax.jacfwd(lambda y: (log_prob(sde, model, to_x(y), key, **options),) * 2, has_aux=True)(y)
        return value, slope

    def step(carry):
        y, value, slope, move, size, state, count = carry
        trial = y + size * move
        trial_value, trial_slope = value_and_slope(trial)
        higher = trial_value >= value + _GAIN * size * jnp.vdot(slope, move) - _NOISE
        # In the signs of a minimisation, as which L-BFGS knows it.
        back, trial_state = memory.update(-trial_slope, state, trial)
        ahead = -jnp.asarray(back)
        # Where log p is convex, the curvature that is remembered may lead downhill.
        ahead = jnp.where(jnp.vdot(ahead, trial_slope) > 0, ahead, trial_slope)
        taken = trial, trial_value, trial_slope, ahead, jnp.ones_like(size), trial_state
        kept = y, value, slope, move, size / 2, state
        return *jax.tree.map(lambda new, old: jnp.where(higher, new, old), taken, kept), count + 1

    def goes_on(carry):
        _, _, slope, _, size, _, count = carry
        climbs = (jnp.linalg.norm(slope) > tolerance) & (size > _SHORTEST)
        return (count < steps) & (climbs | (count == 0))

    def from_one(x):
        y = to_free(x)
        zero, nothing = jnp.zeros_like(y), jnp.asarray(-jnp.inf, y.dtype)
        start = y, nothing, zero, zero, jnp.ones_like(nothing), memory.init(y), 0
        y, value, slope, *_ = jax.lax.while_loop(goes_on, step, start)
        norm = jnp.linalg.norm(slope)
        return Maximum(to_x(y), value, norm, (norm <= tolerance) & jnp.isfinite(value))

    found = jax.vmap(from_one)(points)
    best = jnp.argmax(found.log_prob)
    return jax.tree.map(lambda leaf: leaf[best], found)


def _coordinates(support, draws):
    """The functions from free coordinates, in standard deviations of the draws, to examples and back."""
    centre, std = jnp.mean(draws, axis=0), jnp.std(draws, axis=0)
    if support is None:
        return (lambda y: centre + std * y), (lambda x: (x - centre) / std)
    middle, half = (support.low + support.high) / 2, (support.high - support.low) / 2

    def to_free(x):
        return half / std * jnp.arcsin(jnp.clip((x - middle) / half, _MARGIN - 1, 1 - _MARGIN))

    return (lambda y: middle + half * jnp.sin(std / half * y)), to_free
