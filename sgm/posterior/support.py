"""A model within a support: draws by rejection, and the density that they have."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, SupportsIndex, overload, runtime_checkable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from sgm.checks import check_concrete, check_count, check_instance, is_traced
from sgm.likelihood.log_prob import Density, LogProb, log_prob
from sgm.likelihood.trace import AbstractTrace, Exact
from sgm.model.base import AbstractModel, check_process_and_model
from sgm.nn.condition import Condition
from sgm.sample import sample
from sgm.sde.base import AbstractSDE
from sgm.solve.method import AbstractMethod
from sgm.solve.probability_flow import ProbabilityFlow


@runtime_checkable
class Support(Protocol):
    """A set of examples, such as `sgm.model.Uniform`."""

    def contains(self, x: Array) -> Bool[Array, ""]:
        """Whether one example lies in it."""
        ...


class Acceptance(eqx.Module):
    """How many draws of a model lie within a support.

    Arguments:
        accepted: Number of draws within it.
        drawn: Number of draws.

    Example:
        >>> _, acceptance = sample_within(sde, model, key, 8, lambda x: jnp.all(x > 0), method=sgm.DDIM(10))
        >>> acceptance.drawn  # of which a quarter is within
        1000
        >>> mass, log_stderr = acceptance.rate, acceptance.log_stderr
    """

    accepted: int
    drawn: int

    @property
    def rate(self) -> float:
        """The share of draws within the support: an estimate of the model's mass there."""
        return self.accepted / self.drawn

    @property
    def log_stderr(self) -> float:
        """The standard error of log(rate), in nats. One more draw within and one more without keep it from 0."""
        share = (self.accepted + 1) / (self.drawn + 2)
        return math.sqrt((1 - share) / (share * self.drawn))


def sample_within(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex,
    support: Support | Callable[[Array], Any],
    *,
    cond: Condition | None = None,
    method: AbstractMethod = ProbabilityFlow(),
    round_size: int = 1000,
    least_rate: float = 0.01,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "n *shape"], Acceptance]:
    """Draw examples within a support, by rejection: those outside of it are drawn anew.

    A posterior model leaks out of the support of its prior; `support=prior` leaves out what has leaked.

    Arguments:
        sde: Process.
        model: Model.
        key: Key of all randomness.
        n: Number of examples.
        support: Support: an object whose `contains(x)` says whether one example lies in it, such as
            `sgm.model.Uniform`, or such a function of JAX itself.
        cond: One condition for all examples.
        method: Method of sampling: by default the probability flow, of whose draws `log_prob_within` is the density.
        round_size: Number of examples that are drawn at a time, until n are within.
        least_rate: Share of draws within the support below which it is given up, with an error.
        batch_size, mesh: As those of `sgm.sample`.

    Returns:
        x of shape (n, *model.shape) in the data's units; and how many draws were within, of all.

    Raises:
        ValueError: for a share of draws within the support that is below `least_rate`, draws that are not finite, a
            support of another shape, a condition with batch axes, and inside `jax.jit`, where it cannot be known how
            many rounds there are to be.

    Example:
        >>> prior = sgm.model.Uniform((-1.0, 0.0), (1.0, 2.0))
        >>> theta, acceptance = sample_within(sde, model, key, 8, prior, cond=sgm.Condition(params=[0.3]))

    Reference: Greenberg et al. 2019 (arXiv:1905.07488), who call it leakage.
    """
    call = "sample_within"
    check_process_and_model(call, sde, model)
    check_support(call, support, model.shape)
    n, size = check_count(call, "n", n), check_count(call, "round_size", round_size)
    check_one_condition(call, model, cond)
    if is_traced((sde, model, key, cond)):
        raise ValueError(
            f"{call}: it is inside jax.jit or jax.vmap, but the number of rounds depends on the draws; call it outside."
        )
    check_concrete(call, least_rate=least_rate)
    if not 0 < least_rate <= 1:
        raise ValueError(f"{call}: least_rate = {least_rate}; pass a share above 0, at most 1.")
    kept, accepted, drawn = [], 0, 0
    while accepted < n:
        x = sample(sde, model, jr.fold_in(key, drawn), size, cond=cond, method=method, batch_size=batch_size, mesh=mesh)
        lost = size - np.count_nonzero(np.all(np.isfinite(np.asarray(x)).reshape(size, -1), axis=1))
        if lost:
            raise ValueError(
                f"{call}: {lost} of {size} draws are not finite, and lie neither within the support nor without; pass "
                "a method of more steps, or a model whose output is finite."
            )
        kept.append(x[np.asarray(within(call, support, x, model.shape))])
        accepted, drawn = accepted + len(kept[-1]), drawn + size
        # Three standard deviations, and as many draws as none may be where five are expected.
        if accepted < n and accepted + 3 * math.sqrt(accepted) + 5 < least_rate * drawn:
            raise ValueError(
                f"{call}: {accepted} of {drawn} draws lie within the support, a share of {accepted / drawn:.2g}, where "
                f"least_rate = {least_rate}; pass a support that holds more of the model, a smaller least_rate, or a "
                "model that is trained on examples within it."
            )
    return jnp.concatenate(kept)[:n], Acceptance(accepted, drawn)


@overload
def log_prob_within(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    support: Support | Callable[[Array], Any],
    acceptance: Acceptance,
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Exact(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[False] = False,
    mesh: Mesh | None = None,
) -> Array: ...
@overload
def log_prob_within(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    support: Support | Callable[[Array], Any],
    acceptance: Acceptance,
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Exact(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: Literal[True],
    mesh: Mesh | None = None,
) -> LogProb: ...
def log_prob_within(
    sde: AbstractSDE,
    model: AbstractModel,
    x: Float[Array | np.ndarray, "..."],
    support: Support | Callable[[Array], Any],
    acceptance: Acceptance,
    key: PRNGKeyArray | None = None,
    *,
    cond: Condition | None = None,
    trace: AbstractTrace = Exact(),
    solver: diffrax.AbstractERK = diffrax.Dopri5(),
    controller: diffrax.AbstractAdaptiveStepSizeController | None = None,
    prior: Density | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    full: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "..."] | LogProb:
    """Evaluate the log-density of a model that is cut off outside of a support: log p(x) - log(rate) within it.

    Arguments:
        sde: Process.
        model: Model.
        x: Examples in the data's units, of shape `(*batch, *model.shape)`.
        support: Support, as that of `sample_within`.
        acceptance: What `sample_within` gives with the draws of the same model, condition and support: its `rate` is
            the mass within, whose error falls with the number of draws.
        key: Key of the trace's random probes.
        cond: One condition for all examples.
        trace, solver, controller, prior, adjoint, mesh: As those of `sgm.log_prob`, but for the trace, which is exact
            by default.
        full: Whether a `LogProb` is returned. Its `stderr` holds that of the trace and that of log(rate).

    Returns:
        log p(x) within the support of each example, in nats: -inf outside, nan where the solve did not finish; or a
        `LogProb`.

    Raises:
        ValueError: where no draw lies within the support, for a support of another shape, a condition with batch axes,
            and as `sgm.log_prob`.

    Example:
        >>> prior = sgm.model.Uniform((-1.0, 0.0), (1.0, 2.0))
        >>> theta, acceptance = sample_within(sde, model, key, 8, prior)
        >>> log_p = log_prob_within(sde, model, theta, prior, acceptance)
    """
    call = "log_prob_within"
    check_process_and_model(call, sde, model)
    check_support(call, support, model.shape)
    remedy = "pass what sample_within(...) gives with the draws"
    check_instance(call, "acceptance", acceptance, Acceptance, remedy=remedy)
    check_one_condition(call, model, cond)
    if not acceptance.accepted:
        raise ValueError(
            f"{call}: none of {acceptance.drawn} draws lies within the support, whose mass is not known; draw more."
        )
    options = {"trace": trace, "solver": solver, "controller": controller, "prior": prior, "adjoint": adjoint}
    result = log_prob(sde, model, x, key, cond=cond, **options, full=True, mesh=mesh)
    inside = within(call, support, jnp.asarray(x), model.shape)
    variances = result.stderr**2, jnp.full_like(result.stderr, acceptance.log_stderr**2)
    # Welch and Satterthwaite's.
    shares = variances[0] ** 2 / result.dof + variances[1] ** 2 / acceptance.drawn
    result = dataclasses.replace(
        result,
        value=jnp.where(inside, result.value - math.log(acceptance.rate), -jnp.inf),
        stderr=jnp.where(inside, jnp.sqrt(variances[0] + variances[1]), 0),
        dof=jnp.where(inside, (variances[0] + variances[1]) ** 2 / shares, jnp.inf),
    )
    return result if full else result.value


def within(
    call: str, support: Support | Callable[[Array], Any], x: Float[Array, "..."], shape: tuple[int, ...]
) -> Bool[Array, "..."]:
    """Whether each of the examples, of `shape`, lies within the support."""
    contains = support.contains if isinstance(support, Support) else support
    batch = x.shape[: x.ndim - len(shape)]
    found = _each(contains, x.reshape(-1, *shape))
    if found.shape != (math.prod(batch),) or found.dtype != bool:
        raise ValueError(
            f"{call}: support gives {found.dtype} of shape {found.shape[1:]} for one example; let it give one truth "
            "value, as jnp.all(x > 0)."
        )
    return found.reshape(batch)


@eqx.filter_jit
def _each(contains, x):
    return jax.vmap(contains)(x)


def check_support(call: str, support: Any, shape: tuple[int, ...]) -> None:
    """Raise TypeError for what is no support, and ValueError for a model of examples of another shape than `shape`."""
    remedy = "pass an instance such as sgm.model.Uniform(low, high), or a function such as lambda x: jnp.all(x > 0)"
    check_instance(call, "support", support, Support | Callable, remedy=remedy)
    if isinstance(support, AbstractModel) and support.shape != shape:
        raise ValueError(
            f"{call}: support is of examples of shape {support.shape}, but the model of {shape}; pass one of that "
            "shape."
        )


def check_one_condition(call: str, model: AbstractModel, cond: Condition | None) -> None:
    """Raise ValueError for a condition with batch axes."""
    axes = set() if cond is None else cond.batch_axes(model.conditioning)
    if not axes <= {()}:
        raise ValueError(
            f"{call}: cond has the batch axes {sorted(axes)}, but each condition has a mass of its own within the "
            "support; pass one condition, and call it once for each."
        )
