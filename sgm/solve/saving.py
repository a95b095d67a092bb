"""Saved states of a path: from `SaveAt` in the process's time and x to a solve's clock and state, and back."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sgm.checks import check_time, is_traced
from sgm.nn.units import Units
from sgm.sde.base import AbstractSDE
from sgm.solve.terms import AbstractEquation

_SAME_LEVEL = 1e-4  # Levels nearer than this are one step.
_SAVE_STATE = diffrax.SubSaveAt(t1=True).fn


def check_saveat(sde: AbstractSDE, saveat: diffrax.SaveAt) -> None:
    """Raise ValueError unless `saveat` asks for states of the path, at decreasing times within [t0, t1]."""
    if saveat.dense or saveat.solver_state or saveat.controller_state or saveat.made_jump:
        raise ValueError("sample: saveat asks for dense output or internal states; ask for ts, t0 or steps.")
    for sub in _subs(saveat):
        if sub.t1:
            raise ValueError(
                "sample: saveat asks for t1=True, which is pure noise here, since a sample's path is saved in the "
                "process's time and ends at t0; pass SaveAt(t0=True) for the end, or SaveAt(ts=[sde.t1]) for the start."
            )
        if sub.ts is not None and not is_traced(sub.ts):
            check_time("sample: saveat", sde, sub.ts)
            if not np.all(np.diff(np.asarray(sub.ts, float)) < 0):
                raise ValueError(
                    f"sample: the times of saveat go from {sub.ts[0]} to {sub.ts[-1]}; "
                    "pass decreasing ones, since a sample goes from t1 to t0."
                )


def saves_steps(saveat: diffrax.SaveAt | None) -> bool:
    """Whether frames are asked for at the steps of the solve, whose number may vary."""
    return saveat is not None and any(sub.steps for sub in _subs(saveat))


def saved_levels(sde: AbstractSDE, saveat: diffrax.SaveAt | None) -> Float[Array, " saved"]:
    """The levels of all times that `saveat` asks for."""
    ts = [] if saveat is None else [_times(sub) for sub in _subs(saveat) if sub.ts is not None]
    return sde.level(jnp.concatenate([jnp.zeros(0), *ts]))


def union(sde: AbstractSDE, levels: Float[Array, " levels"], saveat: diffrax.SaveAt | None) -> Float[Array, " more"]:
    """Decreasing `levels` of steps, and among them those at which `saveat` looks.

    Half a step of a solve with noise has too little variance on a straight line: so each saved time is a step.
    """
    wanted = saved_levels(sde, saveat)
    if not len(wanted):
        return levels
    if not is_traced((levels, wanted)):
        # Twins are dropped. Infinite levels are equal, though their difference is not zero.
        known, new = np.asarray(levels), np.unique(np.asarray(wanted))[::-1]
        with np.errstate(invalid="ignore"):
            gaps = np.abs(new[:, None] - known)
        found = (gaps < _SAME_LEVEL) | (new[:, None] == known)
        return jnp.asarray(np.sort(np.concatenate([known, new[~found.any(axis=1)]]))[::-1].copy(), levels.dtype)
    # How many are twins is not known while tracing: each gives way to a further step, somewhere below its twin.
    distance = jnp.abs(levels - wanted[:, None])
    below = jnp.minimum(jnp.argmin(distance, axis=1), len(levels) - 2)
    share = jnp.arange(1, len(wanted) + 1, dtype=levels.dtype) / (len(wanted) + 1)
    further = levels[below] + share * (levels[below + 1] - levels[below])
    new = jnp.where(jnp.min(distance, axis=1) < _SAME_LEVEL, further, wanted)
    return jnp.sort(jnp.concatenate([levels, new]))[::-1]


def on_clock(
    saveat: diffrax.SaveAt,
    equation: AbstractEquation,
    levels: Float[Array, " levels"],
    adaptive: bool,
    units: Units | None,
) -> diffrax.SaveAt:
    """`saveat` for the equation's clock and state, in a solve that steps to `levels`, or adaptively between two."""
    clocks = equation.clock(levels)

    def convert(sub):
        ts = None
        if sub.ts is not None:
            wanted = equation.sde.level(_times(sub))
            # The clock of a step itself, since it may round differently when it is found again.
            nearest = jnp.argmin(jnp.abs(_finite(levels) - _finite(wanted)[:, None]), axis=1)
            ts = jnp.clip(equation.clock(wanted), clocks[0], clocks[-1]) if adaptive else clocks[nearest]
            ts = jnp.asarray(ts, clocks.dtype)

        def in_process(clock, state, args):
            return sub.fn(*_in_process(equation, clock, state, units), args)

        # The state itself is brought to x after the solve, since not all adjoints take a function.
        fn = sub.fn if sub.fn is _SAVE_STATE else in_process
        return diffrax.SubSaveAt(t1=sub.t0, ts=ts, steps=sub.steps, fn=fn)

    return diffrax.SaveAt(subs=_map_subs(convert, saveat))


def frames(
    saveat: diffrax.SaveAt,
    equation: AbstractEquation,
    solution: Any,
    x1: Float[Array, "*shape"],
    from_pure_noise: bool | None,
    units: Units | None,
) -> PyTree[Float[Array, "..."]]:
    """What a solve with `on_clock(saveat)` has saved, in `units`; frames that an adaptive one leaves over are nan."""
    subs = _subs(saveat)
    structure = jax.tree.structure(saveat.subs, is_leaf=_is_sub)
    ts, ys = (structure.flatten_up_to(part) for part in (solution.ts, solution.ys))

    def of_sub(sub, clocks, saved):
        if sub.fn is _SAVE_STATE:
            used = jnp.isfinite(clocks)
            _, saved = jax.vmap(lambda clock, state: _in_process(equation, clock, state, units))(
                jnp.where(used, clocks, equation.clock(equation.sde.level(equation.sde.t0))), saved
            )
        if sub.steps:
            saved = jax.tree.map(lambda leaf: _where(jnp.isfinite(clocks), leaf, jnp.nan), saved)
        if from_pure_noise is not False and sub.ts is not None:
            # The solve began below the infinite level, where x1 is.
            noise = jnp.arange(len(clocks)) < jnp.sum(jnp.isinf(equation.sde.level(_times(sub))))
            first = _restored(x1, units)
            first = first if sub.fn is _SAVE_STATE else sub.fn(equation.sde.t1, first, None)
            saved = jax.tree.map(lambda leaf, first: _where(noise, first, leaf), saved, first)
        return saved

    return jax.tree.unflatten(structure, [of_sub(*each) for each in zip(subs, ts, ys, strict=True)])


def trimmed(tree: PyTree[Array], saveat: diffrax.SaveAt, most: int, axis: int) -> PyTree[Array]:
    """Frames without those along `axis` that no example has, where none has taken more than `most` steps."""
    structure = jax.tree.structure(saveat.subs, is_leaf=_is_sub)

    def of_sub(sub, saved):
        if not sub.steps:
            return saved
        others = 0 if sub.ts is None else len(sub.ts)
        count = others + most // sub.steps + (1 if sub.t0 and most % sub.steps else 0)
        return jax.tree.map(lambda leaf: jax.lax.slice_in_dim(leaf, 0, min(count, leaf.shape[axis]), axis=axis), saved)

    parts = [of_sub(*each) for each in zip(_subs(saveat), structure.flatten_up_to(tree), strict=True)]
    return jax.tree.unflatten(structure, parts)


def _in_process(equation, clock, state, units):
    sde = equation.sde
    t = jnp.clip(sde.time(equation.level(clock)), sde.t0, sde.t1)
    return t, _restored(state * equation.scale(t), units)


def _restored(x, units):
    return x if units is None else units.restore(x)


def _where(mask, yes, no):
    axes = max(jnp.ndim(yes), jnp.ndim(no)) - 1
    return jnp.where(mask.reshape(-1, *[1] * axes), yes, no)


def _times(sub):
    return jnp.asarray(sub.ts, jnp.result_type(float))


def _finite(levels):
    return jnp.where(jnp.isinf(levels), jnp.sign(levels) * 1e30, levels)


def _is_sub(node):
    return isinstance(node, diffrax.SubSaveAt)


def _subs(saveat):
    return jax.tree.leaves(saveat.subs, is_leaf=_is_sub)


def _map_subs(function, saveat):
    return jax.tree.map(function, saveat.subs, is_leaf=_is_sub)
