"""Draw examples from a model."""

import functools
import math
import operator
from typing import Any, SupportsIndex, overload

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from sgm.checks import check_at_least, check_finite, check_instance, is_traced, trace_floats
from sgm.model.base import AbstractModel, check_process_and_model, check_pure_noise
from sgm.nn.condition import Condition, flat_condition
from sgm.parallel import in_groups, mesh_for, replicate, spread
from sgm.sde.base import AbstractSDE
from sgm.solve.euler_maruyama import EulerMaruyama
from sgm.solve.method import AbstractMethod
from sgm.solve.saving import check_saveat, saves_steps, trimmed

_GROUP = 2**20  # Entries of the examples that are drawn together, where no batch_size is given.


@overload
def sample(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractMethod = EulerMaruyama(),
    saveat: None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Array: ...
@overload
def sample(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractMethod = EulerMaruyama(),
    saveat: diffrax.SaveAt,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any: ...
@overload
def sample(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractMethod = EulerMaruyama(),
    saveat: diffrax.SaveAt | None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Any: ...
def sample(
    sde: AbstractSDE,
    model: AbstractModel,
    key: PRNGKeyArray,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractMethod = EulerMaruyama(),
    saveat: diffrax.SaveAt | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> PyTree[Float[Array, "..."] | Int[Array, "..."]]:
    """One example of shape `model.shape`, or `n` of them: x ~ N(0, rho(t1)^2 I) is led from t1 back to t0 by `method`.

    Examples and paths are in the units of the data, `model.units`.

    - `cond`: one condition for all examples, or one each (a leading axis of length `n` on every part).
    - `saveat`: by default the result is E[x0 | x], the denoised end of each path. A `diffrax.SaveAt` asks for the path
      x itself, in the process's time: `SaveAt(ts=jnp.linspace(sde.t1, sde.t0, 8))` for eight frames, of shape
      `(n, 8, *shape)`; `SaveAt(t0=True)` for x at t0; its `fn(t, x, args)` is given the process's time and x.
      Frames come in the order of the solve, from t1 to t0; `SaveAt(steps=True)` gives
      `(frames, number of steps)`, with nan in the frames that another example of the batch has more.
    - `adjoint`: how the sample is differentiated, by default `diffrax.RecursiveCheckpointAdjoint()`;
      `diffrax.BacksolveAdjoint()` with `ProbabilityFlow` of an adaptive controller alone.
    - `progress`: a Diffrax progress meter, such as `diffrax.TqdmProgressMeter()`; with it and no `mesh`, one device
      draws all examples.
    - `batch_size`: how many examples a device draws together, which sets the memory and changes no draw; by default as
      many as have 2^20 entries.
    - `mesh`: devices over which they are spread, by default all of this process's; not inside `jax.jit` or `jax.grad`.

    Each example has a key of its own, `jax.random.split(key, n)`. Raises ValueError for n < 1, for a condition of
    another batch, and for times of `saveat` that are outside [t0, t1] or do not decrease; an adaptive solve that fails
    raises as well.
    """
    check_process_and_model("sample", sde, model)
    check_instance("sample", "method", method, AbstractMethod, "sgm.DDIM(steps=50)")
    check_instance("sample", "saveat", saveat, diffrax.SaveAt | None, "diffrax.SaveAt(t0=True)")
    check_instance("sample", "adjoint", adjoint, diffrax.AbstractAdjoint | None, "diffrax.DirectAdjoint()")
    check_instance("sample", "progress", progress, diffrax.AbstractProgressMeter | None, "diffrax.TqdmProgressMeter()")
    count = None if n is None else operator.index(n)
    if count is not None:
        check_at_least("sample", "n", count)
    if batch_size is not None:
        check_at_least("sample", "batch_size", batch_size)
    if saveat is not None:
        check_saveat(sde, saveat)
    from_pure_noise = check_pure_noise("sample", sde, model)
    method.check(sde)
    batch = () if count is None else (count,)
    cond, cond_axis = flat_condition("sample", model, cond, batch)
    check_finite("sample", cond, "cond")
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    method.check_adjoint(adjoint)
    progress = diffrax.NoProgressMeter() if progress is None else progress
    levels = method.levels(sde, saveat)
    sde, model, method = trace_floats((sde, model, method.standardised(model.units)))
    # A progress meter counts the steps of one loop.
    alone = mesh is None and (not isinstance(progress, diffrax.NoProgressMeter) or count is None)
    mesh = mesh_for("sample", (sde, model, key, cond), mesh)
    mesh = None if alone else mesh
    sde, model, key, cond = replicate((sde, model, key, cond), mesh)
    keys = key if count is None else jr.split(key, count)
    each_cond, shared_cond = (cond, None) if cond_axis == 0 else (None, cond)
    size = max(1, _GROUP // math.prod(model.shape)) if batch_size is None else batch_size
    shared = sde, model, shared_cond, method, saveat, levels
    static = count is None, size, from_pure_noise, adjoint, progress, mesh
    result, steps = _sample(shared, (keys, each_cond), static)
    if not saves_steps(saveat):
        return result
    assert saveat is not None
    if is_traced(steps):
        return result, steps
    return trimmed(result, saveat, int(jnp.max(steps)), axis=len(batch)), steps


def _denoised_end(sde, model, x, cond):
    """E[x0 | x] of the end of a path in standardised coordinates, in the data's units."""
    level = jnp.asarray(sde.level(sde.t0), x.dtype)
    return model.units.restore(model.predict(level, x / sde.rho(sde.t0), cond).denoised)


@eqx.filter_jit
def _sample(shared, each, static):
    alone, size, from_pure_noise, adjoint, progress, mesh = static

    def of_one(shared, each):
        sde, model, cond, method, saveat, levels = shared
        key, own_cond = each
        cond = cond if own_cond is None else own_cond
        key_prior, key_path = jr.split(key)
        x1 = sde.prior.sample(key_prior, model.shape)
        wanted = diffrax.SaveAt(t0=True) if saveat is None else saveat
        path, steps = method.solve(
            method.equation(sde, model, cond),
            x1,
            key_path,
            wanted,
            adjoint,
            progress,
            levels=levels,
            from_pure_noise=from_pure_noise,
            units=None if saveat is None else model.units,
        )
        return (_denoised_end(sde, model, path[-1], cond) if saveat is None else path), steps

    if alone:
        return of_one(shared, each)
    return spread(lambda shared, each: in_groups(functools.partial(of_one, shared), each, size), shared, each, mesh)
