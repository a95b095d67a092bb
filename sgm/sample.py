"""Draw examples from a model."""

import functools
from typing import Any, SupportsIndex, overload

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree, Real

from sgm.checks import (
    check_count,
    check_finished,
    check_finite,
    check_instance,
    check_key,
    check_time,
    is_traced,
    trace_floats,
    trace_process,
)
from sgm.model.base import check_pure_noise
from sgm.model.per_example import separate
from sgm.model.reverse import AbstractReverseModel, check_pair
from sgm.nn.condition import Condition, check_values, flat_condition
from sgm.parallel.devices import mesh_for, replicate
from sgm.parallel.spread import group_size, in_groups, spread
from sgm.sde.process import AbstractProcess
from sgm.solve.default import default_method
from sgm.solve.method import MAX_ADAPTIVE_STEPS
from sgm.solve.sampling import AbstractSamplingMethod
from sgm.solve.saving import saves_steps, trimmed
from sgm.types import Keys, Number


@overload
def sample(
    sde: AbstractProcess,
    model: AbstractReverseModel,
    key: Keys,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractSamplingMethod | None = None,
    saveat: None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    x1: Real[Array | np.ndarray, "..."] | None = None,
    start: tuple[Number, Real[Array | np.ndarray, "..."]] | None = None,
) -> Array: ...
@overload
def sample(
    sde: AbstractProcess,
    model: AbstractReverseModel,
    key: Keys,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractSamplingMethod | None = None,
    saveat: diffrax.SaveAt,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    x1: Real[Array | np.ndarray, "..."] | None = None,
    start: tuple[Number, Real[Array | np.ndarray, "..."]] | None = None,
) -> Any: ...
@overload
def sample(
    sde: AbstractProcess,
    model: AbstractReverseModel,
    key: Keys,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractSamplingMethod | None = None,
    saveat: diffrax.SaveAt | None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    x1: Real[Array | np.ndarray, "..."] | None = None,
    start: tuple[Number, Real[Array | np.ndarray, "..."]] | None = None,
) -> Any: ...
def sample(
    sde: AbstractProcess,
    model: AbstractReverseModel,
    key: Keys,
    n: SupportsIndex | None = None,
    *,
    cond: Condition | None = None,
    method: AbstractSamplingMethod | None = None,
    saveat: diffrax.SaveAt | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    progress: diffrax.AbstractProgressMeter | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    x1: Real[Array | np.ndarray, "..."] | None = None,
    start: tuple[Number, Real[Array | np.ndarray, "..."]] | None = None,
) -> PyTree[Real[Array, "..."]]:
    """Draw examples: x_t1 of the prior, N(0, rho(t1)^2 I), is led from t1 back to t0 by `method`.

    Arguments:
        sde: Process.
        model: Model.
        key: Key of all randomness, of which each example has one of its own, of `jax.random.split(key, n)`; or those
            keys themselves, one for each example.
        n: Number of examples; None for one without a batch axis, or for as many as `x1` or `start` has.
        cond: One condition for all examples, or one each, with a leading axis of length n on every part.
        method: Method of sampling; by default `EulerMaruyama()`, and `CategoricalAncestral()` of a chain of categories.
        saveat: Times, in the process's own time, at which the path itself is wanted: `SaveAt(ts=jnp.linspace(sde.t1,
            sde.t0, 8))` for eight frames of shape (n, 8, *shape), `SaveAt(t0=True)` for x at t0. Its `fn(t, x, args)`
            is given the process's time and x. Frames come in the order of the solve, from t1 to t0.
            `SaveAt(steps=True)` gives `(frames, number of steps)`, with nan in the frames that another example of the
            batch has more.
        adjoint: Way to differentiate the sample, by default `diffrax.RecursiveCheckpointAdjoint()`;
            `diffrax.BacksolveAdjoint()` with `ProbabilityFlow` of an adaptive controller alone.
        progress: Progress meter of Diffrax, such as `diffrax.TqdmProgressMeter()`. With it and no `mesh`, one device
            draws all examples.
        batch_size: Number of examples that a device draws together, which sets the memory and changes no draw; by
            default as many as have 2^20 entries.
        mesh: Devices over which examples are spread, by default all of this process's; not inside `jax.jit` or
            `jax.grad`.
        x1: Latents to begin with in place of the prior's draws, as `sgm.encode` gives them: in the process's own
            coordinates, of shape (n, *model.shape), or `model.shape`.
        start: Time t and noised examples x_t to begin with, in the data's units, of the shape of `x1`. All steps of
            the method lie between t and t0.

    Returns:
        E[x0 | x] of the end of each path, or what `saveat` asks for, in the data's units; of a chain of categories, the
        categories of x_0 as integers. The path is between the ends of the method's grid, `method.process(sde)`, if that
        does not go all the way.

    Raises:
        ValueError: for n < 1, a condition of another batch, or times outside [t0, t1] or of `saveat` that do not
            decrease.
        RuntimeError: where an adaptive solve does not finish; inside `jax.jit` its examples are nan instead.

    Example:
        >>> x = sgm.sample(sgm.VP(), model, jax.random.key(0), 64, method=sgm.DDIM(50))
    """
    check_pair("sample", sde, model)
    check_key("sample", key, axes=1)
    method = default_method(sde) if method is None else method
    check_instance("sample", "method", method, AbstractSamplingMethod, "sgm.DDIM(steps=50)")
    check_instance("sample", "saveat", saveat, diffrax.SaveAt | None, "diffrax.SaveAt(t0=True)")
    check_instance("sample", "adjoint", adjoint, diffrax.AbstractAdjoint | None, "diffrax.DirectAdjoint()")
    check_instance("sample", "progress", progress, diffrax.AbstractProgressMeter | None, "diffrax.TqdmProgressMeter()")
    if start is not None:
        if x1 is not None:
            raise ValueError("sample: both x1 and start are given; pass the one from which the paths are to begin.")
        sde, x1 = _started(sde, model, start)
    sde = method.process(sde)
    method.check(sde)
    count = _count(model, n, x1, key)
    if x1 is not None and start is None:
        _check_of_prior(sde, model, x1)
    if batch_size is not None:
        check_count("sample", "batch_size", batch_size)
    method.check_options(sde, saveat, adjoint)
    from_pure_noise = check_pure_noise("sample", sde, model)
    batch = () if count is None else (count,)
    cond, cond_axis = flat_condition("sample", model, cond, batch)
    check_values("sample", cond)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    progress = diffrax.NoProgressMeter() if progress is None else progress
    levels = method.levels(sde, saveat)
    model, cond, own = separate("sample", model, cond, cond_axis, count)
    sde, model, method = trace_process(sde), *trace_floats((model, method.standardised(model.units)))
    # A progress meter counts the steps of one loop.
    alone = mesh is None and (not isinstance(progress, diffrax.NoProgressMeter) or count is None)
    mesh = mesh_for("sample", (sde, model, key, own, cond, x1), mesh)
    mesh = None if alone else mesh
    sde, model, key, own, cond, x1 = replicate((sde, model, key, own, cond, x1), mesh)
    keys = key if count is None or _has_batch(key) else jr.split(key, count)
    size = group_size(model.shape) if batch_size is None else batch_size
    shared = sde, model, cond, method, saveat, levels
    static = count is None, size, from_pure_noise, adjoint, progress, mesh
    result, steps, finished = _sample(shared, (keys, own, x1), static)
    if model.takes_levels and not is_traced(finished) and not np.all(finished):
        raise RuntimeError("sample: the model's logits are not finite; train it anew, or from an earlier checkpoint.")
    if levels is None:
        check_finished("sample", finished, MAX_ADAPTIVE_STEPS)
    if not saves_steps(saveat):
        return result
    assert saveat is not None
    if is_traced(steps):
        return result, steps
    return trimmed(result, saveat, int(jnp.max(steps)), axis=len(batch)), steps


def _started(sde, model, start):
    """The process that ends at time t, and x_t in its coordinates."""
    if not isinstance(start, tuple) or len(start) != 2:
        raise TypeError(f"sample: start is a {type(start).__name__}; pass the tuple (t, x) of a time and x_t.")
    t, x = start
    check_time("sample: start", sde, t)
    model.check_batch("sample: start", x)
    check_finite("sample: start", x)
    if not is_traced((sde, t)) and not float(t) > float(sde.t0):
        raise ValueError(f"sample: start at t = {t}, which is t0 = {sde.t0}; pass t > t0, from which there is a step.")
    return sde.until(t), x if model.takes_levels else model.units.standardise(x)


def _check_of_prior(sde, model, x1):
    """Raise for states that a chain of categories never ends in."""
    if model.takes_levels and not is_traced(x1):
        bad = np.argwhere(np.asarray(sde.target)[np.asarray(x1)] == 0)
        if len(bad):
            where = tuple(int(axis) for axis in bad[0])
            raise ValueError(
                f"sample: x1{list(where)} is {np.asarray(x1)[where]}, which has probability 0 in the prior of "
                f"{type(sde).__name__}; pass states of the prior, or start=(t, x) for those of an earlier step."
            )


def _has_batch(key):
    """Whether there is a key for each example."""
    return jnp.ndim(key) > (0 if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else 1)


def _count(model, n, x1, key):
    """The number of examples, None for one without a batch axis."""
    count = None if n is None else check_count("sample", "n", n)
    if _has_batch(key):
        if count is not None and count != len(key):
            raise ValueError(f"sample: n = {n}, but there are {len(key)} keys; leave n out, or pass one key.")
        n = count = len(key)
    if x1 is None:
        return count
    batch = model.check_batch("sample: x1", x1)
    check_finite("sample", x1, "x1")
    found = batch[0] if batch else None
    if len(batch) > 1 or (count is not None and count != found):
        raise ValueError(
            f"sample: n = {n}, but the paths begin from batch axes {batch}; pass n = None, and one batch axis at most."
        )
    return found


@eqx.filter_jit
def _sample(shared, each, static):
    alone, size, from_pure_noise, adjoint, progress, mesh = static

    def of_one(shared, each):
        sde, model, cond, method, saveat, levels = shared
        key, own, x1 = each
        model, cond = own.join(model, cond)
        key_prior, key_path = jr.split(key)
        x1 = sde.prior.sample(key_prior, model.shape) if x1 is None else x1
        return method.draw(
            sde,
            model,
            cond,
            key_path,
            x1,
            saveat,
            adjoint,
            progress,
            levels=levels,
            from_pure_noise=from_pure_noise,
        )

    if alone:
        return of_one(shared, each)

    def of_rows(shared, each):
        return in_groups(jax.vmap(functools.partial(of_one, shared)), each, size)

    return spread(of_rows, shared, each, mesh)
