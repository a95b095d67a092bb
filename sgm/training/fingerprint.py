"""What a training run was begun with, as JSON, so that a later call can tell whether it asks for the same run.

Arrays are told apart by a few sums, which another device reproduces up to rounding. An optimiser is a pair of closures,
and is told apart by what it does: its updates of a few small parameters at many step counts.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PyTree

from sgm.training.settings import AbstractOptimiser
from sgm.training.step import updates_of

FILE = "fingerprint.json"
# Fields that change no result, but for rounding.
_FREE = ("accumulate", "remat")
# Lists of real numbers are the same where they agree to this share of the largest.
_CLOSE = 1e-5
# The step counts at which an optimiser is asked. Schedules that differ only between two of them look the same.
_COUNTS = (0, *sorted({round(1.2**power) for power in range(80)}))


class RunMismatch(ValueError):
    """A folder holds a run that was begun with other settings."""


def fingerprint(recipe: Any, optimiser: Any, steps: int, model: PyTree, batch: tuple[Any, Any]) -> dict[str, Any]:
    """Describe all that a run depends on.

    Arguments:
        recipe: The `sgm.training.step.Recipe`, or one with a schedule beside it.
        optimiser: The optimiser as the caller gave it: a setting, or a transformation of optax.
        steps: Number of steps of the run, of which a setting makes a learning rate.
        model: The model at the start, of which only the structure counts.
        batch: The examples and the condition of the first step.

    Returns:
        The parts "recipe", "model" and "data", as JSON.
    """
    settings = describe(getattr(recipe, "recipe", recipe), values_of)
    if isinstance(optimiser, AbstractOptimiser):
        settings |= {"optimiser": describe(optimiser, values_of), "steps": steps}
    else:
        settings["optimiser"] = behaviour(optimiser, getattr(recipe, "recipe", recipe).split(model)[0])
    data = dict(zip(("x", "cond"), batch, strict=True))
    return {"recipe": settings, "model": describe(model, structure_of), "data": describe(data, values_of)}


def describe(value: Any, array: Callable[[Any], Any]) -> Any:
    """Describe a module, a setting or a pytree as JSON, by the names of its classes and fields.

    Arguments:
        value: What is described. An optimiser has no fields that can be read, see `behaviour`.
        array: How the arrays in it are described, `structure_of` or `values_of`.
    """
    if isinstance(value, jax.Array | np.ndarray):
        return array(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.name not in _FREE]
        return {"type": type(value).__name__, **{name: describe(getattr(value, name), array) for name in names}}
    if isinstance(value, functools.partial):
        return {"type": "partial", "parts": describe((value.func, value.args, value.keywords), array)}
    if isinstance(value, Mapping):
        return {str(name): describe(part, array) for name, part in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, optax.GradientTransformation):
        if not all(isinstance(part, int | float) for part in value):
            return {str(place): describe(part, array) for place, part in enumerate(value)}
        return list(value) if len(value) <= 16 else values_of(np.asarray(value))
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)


def structure_of(array: Any) -> str:
    """Describe an array by its type and shape, as "float32(3, 4)"."""
    return f"{array.dtype}{tuple(array.shape)}"


def values_of(array: Any) -> Any:
    """Describe an array by its type, its shape, its norm and three weighted sums of its entries; a key by its words."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return " ".join(str(word) for word in np.asarray(jr.key_data(array)).ravel())
    entries = np.asarray(array).astype(np.float64).ravel()
    places = 1 + np.arange(entries.size)
    sums = [float(np.cos(frequency * places) @ entries) for frequency in (0.7, 1.9, 2.6)]
    return {"shape": structure_of(array), "values": [float(np.linalg.norm(entries)), *sums]}


def behaviour(optimiser: optax.GradientTransformation, parameters: PyTree) -> list[float]:
    """Describe what an optimiser does to a few small parameters, one for each rank among `parameters`.

    An optimiser that wants the structure of `parameters`, as `optax.masked` with a mask of it does, gets it, with small
    arrays. After three updates by gradients of different sizes, the step counts of its state are set to each of 0, 1,
    2, ..., 1.8 million in turn. The norms of the updates that follow are returned, and then a weighted sum of each.
    """
    kinds = {f"{leaf.ndim} {leaf.dtype}": leaf for leaf in jax.tree.leaves(parameters)}
    try:
        return _updates(optimiser, kinds)
    except Exception:  # Optimisers say in many ways that the structure is not theirs.
        return _updates(optimiser, parameters)


def _updates(optimiser, parameters):
    leaves, structure = jax.tree.flatten(parameters)

    def small(step, size=1.0):
        """Numbers of this size, different for each step and leaf, in the leaf's shape cut to 2 along each axis."""
        new = []
        for number, leaf in enumerate(leaves):
            shape = tuple(min(length, 2) for length in leaf.shape)
            places = np.arange(math.prod(shape)).reshape(shape)
            new.append(jnp.asarray(size * np.cos(1 + 1.3 * places + 0.7 * number + 2.1 * step), leaf.dtype))
        return jax.tree.unflatten(structure, new)

    @jax.jit
    def updates(weights, gradients, last, sums):
        state = optimiser.init(weights)
        for gradient in gradients:
            _, state = updates_of(optimiser, gradient, state, weights)

        def at(count):
            later = jax.tree.map(lambda leaf: count.astype(leaf.dtype) if _is_count(leaf) else leaf, state)
            update, _ = updates_of(optimiser, last, later, weights)
            return optax.tree.norm(update), optax.tree.vdot(update, sums)

        return jax.vmap(at)(jnp.asarray(_COUNTS))

    gradients = [small(1, 0.1), small(2, 10.0), small(3, 1e3)]
    return np.asarray(updates(small(0), gradients, small(4), small(5)), np.float64).ravel().tolist()


def write_fingerprint(run: Path, fingerprint: dict[str, Any]) -> None:
    """Write what a run is begun with to its folder, whole or not at all."""
    part = run / (FILE + ".part")
    part.write_text(json.dumps(fingerprint, indent=1) + "\n")
    part.replace(run / FILE)


def check_same_run(call: str, run: Path, now: dict[str, Any]) -> None:
    """Compare parts of a fingerprint with those that a run was begun with.

    Raises:
        RunMismatch: where they differ, naming the entries, or where the run's folder does not say.
    """
    path = run / FILE
    try:
        saved = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunMismatch(
            f"{call}: {run} has a checkpoint, but does not say what it was begun with ({FILE} is missing); restore "
            "that file, or begin in another folder."
        ) from None
    except json.JSONDecodeError as error:
        raise RunMismatch(f"{call}: {path} is not JSON ({error}); restore it, or begin in another folder.") from None
    lines = [line for part in now for line in differing(saved.get(part), now[part], part)]
    if lines:
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise RunMismatch(
            f"{call}: the run in {run} was begun with other settings than these: {'; '.join(lines[:5])}{more}. Pass "
            "the same ones to go on, or another folder to begin a new run."
        )


def differing(saved: Any, now: Any, name: str) -> list[str]:
    """List the entries in which two descriptions differ.

    Arguments:
        saved: First description, of `describe`.
        now: Second description.
        name: What they describe.

    Returns:
        Lines as "name.average_decay: 0.99, not 0.999".
    """
    if isinstance(saved, dict) and isinstance(now, dict) and saved.get("type") == now.get("type"):
        # All options of a class are written. One that is not there is newer than the run.
        known = saved | now if "type" not in saved else saved
        parts = ((saved.get(part), now.get(part), f"{name}.{part}") for part in known)
        return [line for part in parts for line in differing(*part)]
    if saved == now or _is_close(saved, now):
        return []
    shown = [str(value.get("type") if isinstance(value, dict) else value) for value in (saved, now)]
    return [f"{name}: {shown[0]}, not {shown[1]}" if len("".join(shown)) < 100 else name]


def _is_close(first, second):
    if not (isinstance(first, list) and isinstance(second, list) and len(first) == len(second)):
        return False
    if not any(isinstance(value, float) for value in first + second):
        return False
    size = np.nanmax(np.abs(first + second), initial=0)
    return np.allclose(first, second, rtol=0, atol=_CLOSE * size, equal_nan=True)


def _is_count(leaf):
    return leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)
