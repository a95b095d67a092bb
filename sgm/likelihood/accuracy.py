"""Solver tolerances and probes chosen for each example, until its error is below what was asked for."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PyTree, Shaped

from sgm.checks import check_concrete, is_traced
from sgm.likelihood.trace import AbstractTrace, Exact

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
SAFETY = 2
MIN_DOF = 8  # A standard error of fewer degrees of freedom is too often too small by chance.


def check_accuracy(accuracy: float, controller: Any, arguments: PyTree) -> None:
    """Raise unless an accuracy can be asked for."""
    check_concrete("log_prob", accuracy=accuracy)
    if not accuracy > 0:
        raise ValueError(f"log_prob: accuracy = {accuracy}; pass a number of nats above 0.")
    if controller is not None:
        raise ValueError("log_prob: both accuracy and controller are given, but accuracy chooses; pass one of them.")
    if is_traced(arguments):
        raise ValueError(
            f"log_prob: accuracy = {accuracy} inside jax.jit or jax.grad, where no value can be looked at to choose; "
            "call it outside, or pass controller and trace."
        )


def warn_of_missed(call: str, accurate: Bool[Array, "..."] | None, accuracy: float | None) -> None:
    """Warn if some values are not known to the accuracy that was asked for."""
    if accurate is not None and (missed := np.count_nonzero(~accurate)):
        warnings.warn(
            f"{call}: {missed} of {accurate.size} values are not known to accuracy = {accuracy}; full=True says which.",
            stacklevel=3,
        )


def to_accuracy(
    solve: Callable[..., Any],
    trace: AbstractTrace,
    accuracy: float,
    keys: Shaped[Array, "n *words"] | None,
    n: int,
    shape: tuple[int, ...],
) -> Any:
    """The `LogProb` of `n` examples of `shape`, each with a standard error of at most `accuracy` nats, where possible.

    1. Each example is solved at smaller and smaller tolerances with the same probes, until two values in a row differ
       by little. Twice their difference is taken for the error of the solver at the smaller tolerance, and half the
       accuracy is enough.
    2. Rounds of further probes are averaged until the standard error, taken to be no less than the examples' median, is
       below the rest of the accuracy, and known with `MIN_DOF` degrees of freedom. Where they would take more products
       with the Jacobian than the exact trace, that takes their place.

    Where a solve does not finish, or the smallest tolerance still leaves too large an error, `accurate` is false.
    `solve(trace, rows, keys, tolerance)` gives the `LogProb` of those rows, each at its tolerance.
    """
    dim, products = math.prod(shape), trace.products(shape)
    if products >= dim:
        trace = Exact(trace.chunk)

    def run(trace, rows, number, tolerance):
        # Rows are padded to one of a few sizes, each of which is compiled once.
        size = n
        while size >= 4 * len(rows):
            size = math.ceil(size / 4)
        padded = np.pad(rows, (0, size - len(rows)), mode="edge")
        round_keys = None if keys is None else jax.vmap(jr.fold_in, (0, None))(keys[padded], number)
        result = solve(trace, padded, round_keys, jnp.asarray(tolerance[padded]))
        return jax.tree.map(lambda leaf: np.array(leaf[: len(rows)]), result)

    tolerance = np.full(n, TOLERANCES[0], np.float32)
    solver_error = np.full(n, np.inf, np.float32)
    result = run(trace, np.arange(n), 0, tolerance)
    for smaller in TOLERANCES[1:]:
        rows = np.flatnonzero(~(solver_error <= accuracy / 2))
        if len(rows):
            tolerance[rows] = smaller
            new = run(trace, rows, 0, tolerance)
            solver_error[rows] = SAFETY * np.abs(new.value - result.value[rows])
            _put(result, rows, new)

    target = np.sqrt(np.maximum(accuracy**2 - solver_error**2, 0))
    finished = np.isfinite(result.stderr)
    rounds, typical = 1, np.median(result.stderr[finished]) if finished.any() else 0.0
    while True:
        # A standard error far below the others' may be so by chance.
        stderr = np.where(result.stderr > 0, np.maximum(result.stderr, typical / math.sqrt(rounds)), 0)
        rows = np.flatnonzero(_unsure(result, stderr, target))
        if len(rows) == 0:
            break
        needed = products * rounds * (stderr[rows] / target[rows]) ** 2
        takes_exact = ~(np.maximum(needed, products * (rounds + 1)) <= dim)
        for part, of_part in ((rows[takes_exact], Exact(trace.chunk)), (rows[~takes_exact], trace)):
            if len(part):
                new = run(of_part, part, rounds, tolerance)
                _put(result, part, new if isinstance(of_part, Exact) else _average(result, part, rounds, new))
        rounds += 1
    accurate = np.hypot(result.stderr, solver_error) <= accuracy
    result = jax.tree.map(jnp.asarray, result)
    return dataclasses.replace(result, solver_error=jnp.asarray(solver_error), accurate=jnp.asarray(accurate))


def _unsure(result, stderr, target):
    """Where further probes are needed and help.

    A standard error is small enough where that of Student's t is, since those stop first that are too small by chance.
    """
    dof = np.maximum(result.dof, MIN_DOF)
    known = (stderr <= np.sqrt(1 - 2 / dof) * target) & (result.dof >= MIN_DOF)
    return ~known & np.isfinite(result.value) & (target > 0)


def _average(result, rows, rounds, new):
    """Of the mean of so many rounds and a new one; the degrees of freedom are Welch and Satterthwaite's."""
    old_weight, new_weight = rounds / (rounds + 1), 1 / (rounds + 1)
    old_variance, new_variance = (old_weight * result.stderr[rows]) ** 2, (new_weight * new.stderr) ** 2
    variance = old_variance + new_variance
    mean = old_weight * result.value[rows] + new_weight * new.value
    known = np.maximum(old_variance**2 / result.dof[rows] + new_variance**2 / new.dof, np.finfo(np.float32).tiny)
    dof = np.where(variance > 0, variance**2 / known, np.inf)
    return eqx.tree_at(lambda result: (result.value, result.stderr, result.dof), new, (mean, np.sqrt(variance), dof))


def _put(result, rows, new):
    """Write the new results in the place of the old; evaluations add up."""
    new = eqx.tree_at(lambda result: result.nfe, new, new.nfe + result.nfe[rows])
    for old_leaf, new_leaf in zip(jax.tree.leaves(result), jax.tree.leaves(new), strict=True):
        old_leaf[rows] = new_leaf
