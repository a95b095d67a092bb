"""Checks of arguments where they enter; each message names the call, the value and the remedy."""

import operator
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Entry = TypeVar("Entry")


def check_instance(call: str, name: str, value: Any, kind: Any, example: str = "", *, remedy: str = "") -> None:
    """Raise TypeError unless `value` is an instance of `kind`, of which the expression `example` is one.

    The `remedy` stands in the place of an example where an instance is not made by a class, as a function or a result.
    """
    remedy = remedy or f"pass an instance such as {example}"
    if isinstance(value, type):
        raise TypeError(f"{call}: {name} is the class {value.__name__}; {remedy}.")
    if not isinstance(value, kind):
        plain = value is None or isinstance(value, str | bool | int | float)
        is_what = f"= {value!r}" if plain else f"is a {type(value).__name__}"
        raise TypeError(f"{call}: {name} {is_what}; {remedy}.")


def check_array(call: str, name: str, value: Any) -> None:
    """Raise TypeError for what is no array of JAX or NumPy, such as a list or a table of pandas."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        remedy = f"{name}.to_numpy()" if hasattr(value, "to_numpy") else f"jnp.asarray({name})"
        raise TypeError(f"{call}: {name} is a {type(value).__name__}; pass an array, such as {remedy}.")


def check_key(call: str, key: Any, axes: int = 0) -> None:
    """Raise for what is no key of JAX, and for keys along more than `axes` axes: 0 is a single key."""
    remedy = "pass jax.random.key(0)"
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"{call}: key = {key!r}; {remedy}.")
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_typed and (key.dtype != np.uint32 or not key.ndim):
        raise TypeError(f"{call}: key has dtype {key.dtype}; {remedy}.")
    shape = key.shape if is_typed else key.shape[:-1]
    if len(shape) > axes:
        raise ValueError(f"{call}: there are keys of shape {shape}; {remedy}{', or a key for each example' * axes}.")


def check_examples(call: str, x, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The batch axes of `x`, whose trailing axes must be the model's `shape`, of floating-point entries."""
    check_array(call, "x", x)
    batch = x.shape[: max(0, x.ndim - len(shape))]
    if x.shape != batch + shape:
        raise ValueError(
            f"{call}: x has shape {x.shape}, but the model is of examples of shape {shape}; "
            f"pass one example, or batch axes in front of that shape."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{call}: x has dtype {x.dtype}, but the model is of real numbers; pass numbers as x.astype(np.float32), "
            "and grey levels 0 ... count - 1 in their own units, as "
            "sgm.likelihood.dequantise(x, count, key, -0.5, count - 0.5)."
        )
    return batch


def check_finite(call: str, tree, name: str = "x") -> None:
    """Raise if an entry of an array, or of one of a tree's, is not finite; traced arrays pass."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        bad = [] if is_traced(leaf) else np.argwhere(~np.isfinite(np.asarray(leaf)))
        if len(bad):
            part, where = name + jax.tree_util.keystr(path), tuple(int(axis) for axis in bad[0])
            raise ValueError(
                f"{call}: {len(bad)} of the {leaf.size} entries of {part} are not finite, the first "
                f"{part}{list(where)} = {leaf[where]}; leave those examples out, or mend them."
            )


def check_finished(call: str, finished, max_steps: int) -> None:
    """Raise RuntimeError unless every solve has come to its end; traced ones pass."""
    if not is_traced(finished) and not np.all(finished):
        unfinished = np.size(finished) - np.count_nonzero(finished)
        raise RuntimeError(
            f"{call}: {unfinished} of {np.size(finished)} solves did not finish within {max_steps} steps; pass a "
            "controller with larger tolerances, or a model whose output is finite and smooth."
        )


def warn_of_scale(call: str, x, stacklevel: int = 3) -> None:
    """Warn if examples are far from unit scale, to which noise levels, weightings and networks are fitted.

    It warns where the root mean square of all entries is above 10, and where their mean is above 1 in size and more
    than 10 standard deviations from 0 (of 100 entries or more, since few may lie close together). Traced arrays pass,
    and entries that are nan, which are missing, are left out.

    Arguments:
        call: Name of the call that was given the examples.
        x: Examples in the model's own units, standardised, of any shape.
        stacklevel: Whose line the warning names; 3 is the caller of the function that calls this one.
    """
    if is_traced(x):
        return
    entries = np.asarray(x, np.float64)
    entries = entries[~np.isnan(entries)]
    if not entries.size:
        return
    mean, std = float(np.mean(entries)), float(np.std(entries))
    size = (mean**2 + std**2) ** 0.5
    if size > 10 or (entries.size >= 100 and abs(mean) > max(10 * std, 1)):
        warnings.warn(
            f"{call}: x has the root mean square {size:.3g} (mean {mean:.3g}, standard deviation {std:.3g}), but noise "
            "levels, weightings and networks are fitted to data of about unit scale; give the model the units of the "
            "data, sgm.ScoreModel(network, data=data) or units=sgm.Units(mean, std).",
            stacklevel=stacklevel,
        )


def check_precision(call: str, x) -> None:
    """Raise if an array has less than single precision, which no adaptive solve can do with."""
    if jnp.finfo(x.dtype).bits < 32:
        raise ValueError(f"{call}: x has dtype {x.dtype}; pass float32, since adaptive steps need its digits.")


def is_traced(tree) -> bool:
    """Whether a leaf of the tree is traced, so that its value cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def check_concrete(call: str, **numbers: Any) -> None:
    """Raise for traced numbers where values are needed to build what is computed."""
    for name, number in numbers.items():
        if is_traced(number):
            raise ValueError(
                f"{call}: {name} is traced by jax.jit, jax.grad or jax.vmap, but its value is needed here; pass a "
                "plain number."
            )


def check_time(call: str, sde, t) -> None:
    """Raise if a concrete time lies outside the process's [t0, t1]; traced times pass."""
    if is_traced((t, sde.t0, sde.t1)):
        return
    times = np.asarray(t, np.float32)
    outside = times[~((times >= np.float32(sde.t0)) & (times <= np.float32(sde.t1)))]
    if outside.size:
        raise ValueError(
            f"{call}: t = {outside.flat[0]} lies outside [t0, t1] = [{sde.t0}, {sde.t1}] of {type(sde).__name__}; "
            "pass times within it, or build the process with other ends."
        )


def check_order(call: str, order: int) -> None:
    if order not in (1, 2, 3):
        raise ValueError(f"{call}: order = {order}; pass 1, 2 or 3.")


def check_at_least(call: str, name: str, value: Any, least: float = 1) -> None:
    """Raise if a concrete number is below `least`; traced ones pass."""
    if not is_traced(value) and not value >= least:
        raise ValueError(f"{call}: {name} = {value}; pass {name} >= {least}.")


def check_positive(call: str, name: str, value: Any) -> None:
    """Raise if a concrete number is not above 0; traced ones pass."""
    if not is_traced(value) and not value > 0:
        raise ValueError(f"{call}: {name} = {value}; pass {name} > 0.")


def check_count(call: str, name: str, value: Any, least: int = 1) -> int:
    """The whole number `value`. Raise TypeError for what is none, and ValueError if it is below `least`."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{call}: {name} = {value!r}; pass a whole number, {name} >= {least}.") from None
    check_at_least(call, name, count, least)
    return count


def check_tuple(call: str, name: str, values: Any, entry: Callable[[Any], Entry], example: str) -> tuple[Entry, ...]:
    """A tuple of the numbers that `entry` makes of the values. Raise TypeError where there is none."""
    try:
        return tuple(entry(value) for value in values)
    except (TypeError, ValueError):
        raise TypeError(f"{call}: {name} = {values!r}; pass a tuple of numbers, such as {example}.") from None


def trace_floats(tree: Any) -> Any:
    """The tree with arrays in the place of its Python floats, so that another value is not another compilation."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if type(leaf) is float else leaf, tree)


def trace_process(sde: Any) -> Any:
    """The process with arrays in the place of its Python numbers, floats or integers."""
    number = jnp.result_type(float)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, number) if type(leaf) in (int, float) else leaf, sde)
