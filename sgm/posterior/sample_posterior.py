"""Draws of a posterior."""

import math
from typing import Literal, SupportsIndex, overload

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_count, check_instance, check_key
from sgm.model.base import AbstractModel, check_process_and_model, check_pure_noise
from sgm.nn.condition import Condition, check_values, flat_condition
from sgm.posterior.evidence import AbstractEvidence, with_y
from sgm.posterior.guided import check_evidence
from sgm.posterior.method import AbstractPosteriorMethod, Draws
from sgm.posterior.mmps import MMPS
from sgm.sde.base import AbstractSDE


@overload
def sample_posterior(
    sde: AbstractSDE,
    model: AbstractModel,
    evidence: AbstractEvidence,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractPosteriorMethod = MMPS(),
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    full: Literal[False] = False,
) -> Array: ...
@overload
def sample_posterior(
    sde: AbstractSDE,
    model: AbstractModel,
    evidence: AbstractEvidence,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractPosteriorMethod = MMPS(),
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    full: Literal[True],
) -> Draws: ...
@overload
def sample_posterior(
    sde: AbstractSDE,
    model: AbstractModel,
    evidence: AbstractEvidence,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractPosteriorMethod = MMPS(),
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    full: bool,
) -> Array | Draws: ...
def sample_posterior(
    sde: AbstractSDE,
    model: AbstractModel,
    evidence: AbstractEvidence,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractPosteriorMethod = MMPS(),
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    full: bool = False,
) -> Float[Array, "..."] | Draws:
    """Draw from the posterior p(x | y) of a model, given evidence y about an example.

    Arguments:
        sde: Process.
        model: Model of the prior p(x), or of p(x | cond).
        evidence: What is observed, in the data's units. With batch axes on its `y` it is many observations.
        key: Key of all randomness.
        n: Number of draws for each observation; None for one without an axis.
        cond: One condition for all observations, or one each.
        method: Way to draw: `MMPS()`, `PiGDM()`, `TMPD()`, `DPS()`, `DAPS()`, `SplitGibbs()`, `TwistedSMC()`,
            `ToldTransitions()`.
        batch_size: Number of examples that a device draws together, as in `sgm.sample`.
        mesh: Devices over which examples are spread, as in `sgm.sample`.
        full: Whether `Draws` are returned, with the log-evidence of methods that estimate it.

    Returns:
        Draws in the data's units, of shape (*observations, n, *shape); or `Draws`.

    Raises:
        TypeError: for arguments of other types, and evidence that the method cannot take.
        ValueError: for evidence about examples of another shape, infinite entries of y, an operator that is not linear,
            n < 1, and a condition of another batch.

    Example:
        >>> evidence = sgm.posterior.Linear(jnp.sum, jnp.asarray(1.5), std=0.1)  # the sum of the entries is known
        >>> x = sgm.sample_posterior(sde, model, evidence, jax.random.key(0), 64)
        >>> x.shape
        (64, 2)
    """
    call = "sample_posterior"
    check_process_and_model(call, sde, model)
    check_instance(call, "method", method, AbstractPosteriorMethod, "sgm.posterior.MMPS()")
    check_evidence(type(method).__name__, method, evidence)
    evidence.check(call, model.shape)
    check_pure_noise(call, sde, model)
    check_key(call, key)
    draws = 1 if n is None else check_count(call, "n", n)
    if batch_size is not None:
        check_count(call, "batch_size", batch_size)
    axes = evidence.batch_axes(call, model.shape)
    cond, _ = flat_condition(call, model, cond, axes)
    check_values(call, cond)
    y = evidence.y.reshape(math.prod(axes), *evidence.y.shape[len(axes) :])
    found = method.draw(sde, model, with_y(evidence, y), key, draws, cond=cond, batch_size=batch_size, mesh=mesh)
    x = jax.vmap(lambda y, x: jax.vmap(with_y(evidence, y).complete)(x))(y, found.x)
    x = x.reshape(*axes, *(() if n is None else (draws,)), *model.shape)
    others = jax.tree.map(lambda leaf: leaf.reshape(axes), (found.log_evidence, found.stderr))
    return Draws(x, *others) if full else x
