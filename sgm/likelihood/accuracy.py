"""Solver tolerances and probes chosen for each example, until its error is below what was asked for."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, PyTree, Shaped

from sgm.checks import check_concrete, is_traced
from sgm.likelihood.flow import Course
from sgm.likelihood.trace import AbstractTrace, Exact

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
# Every other solve is of another method, with other steps, so that two in a row that agree have no error in common.
OTHER = Course(first_step=0.1, largest_step=1.1, stretch=1.5)
SAFETY = 2
FEWEST_ROUNDS = 3  # Of as few probes as the default, before their spread is known.
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


def warn_of_missed(call: str, converged: Bool[Array, "..."] | None, accuracy: float | None) -> None:
    """Warn if some values are not known to the accuracy that was asked for."""
    if converged is not None and (missed := np.count_nonzero(~converged)):
        warnings.warn(
            f"{call}: {missed} of {converged.size} values are not known to accuracy = {accuracy}; full=True "
            "says which.",
            stacklevel=3,
        )


def to_accuracy(
    solve: Callable[..., Any],
    solver: diffrax.AbstractERK,
    trace: AbstractTrace,
    accuracy: float,
    keys: Shaped[Array, "n *words"] | None,
    n: int,
    shape: tuple[int, ...],
) -> Any:
    """The `LogProb` of `n` examples of `shape`, each with a standard error of at most `accuracy` nats, where possible.

    1. Each example is solved at smaller and smaller tolerances with the same probes, by two methods of different steps
       in turn, until two values in a row differ by little. Twice their difference, and what rounding leaves, is taken
       for the error of the solver at the smaller tolerance, and half the accuracy is enough.
    2. Rounds of further probes are averaged until the standard error, taken to be no less than the examples' median, is
       below the rest of the accuracy, or half of it where the solver has left less, and known with `MIN_DOF` degrees of
       freedom. Where they would take more products with the Jacobian than the exact trace, that takes their place.

    Where a solve does not finish, or the smallest tolerance still leaves too large an error, `converged` is false.
    `solve(trace, rows, keys, tolerance, solver, course)` gives the `LogProb` of those rows, each at its tolerance, with
    the error of rounding as its `solver_error`.
    """
    dim, products = math.prod(shape), trace.products(shape)
    if FEWEST_ROUNDS * products >= dim:
        trace = Exact(trace.chunk)

    other = diffrax.Dopri5() if isinstance(solver, diffrax.Tsit5) else diffrax.Tsit5()
    ways = (solver, Course()), (other, OTHER)
    level = np.zeros(n, int)  # Of each example, which tolerance.

    def run(trace, rows, number):
        # Rows are padded to one of a few sizes, each of which is compiled once.
        size = n
        while size >= 4 * len(rows):
            size = math.ceil(size / 4)
        padded = np.pad(rows, (0, size - len(rows)), mode="edge")
        round_keys = None if keys is None else jax.vmap(jr.fold_in, (0, None))(keys[padded], number)
        tolerance = jnp.asarray(np.asarray(TOLERANCES, np.float32)[level[padded]])
        result = solve(trace, padded, round_keys, tolerance, *ways[level[rows[0]] % 2])
        return jax.tree.map(lambda leaf: np.array(leaf[: len(rows)]), result)

    solver_error = np.full(n, np.inf, np.float32)
    result = run(trace, np.arange(n), 0)
    for smaller in range(1, len(TOLERANCES)):
        rows = np.flatnonzero(~(solver_error <= accuracy / 2))
        if len(rows):
            level[rows] = smaller
            new = run(trace, rows, 0)
            solver_error[rows] = SAFETY * np.abs(new.value - result.value[rows]) + new.solver_error
            _put(result, rows, new)

    target = np.sqrt(np.maximum(accuracy**2 - solver_error**2, (accuracy / 2) ** 2))
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
        for chosen, of_part in ((takes_exact, Exact(trace.chunk)), (~takes_exact, trace)):
            # Those that one method solves are solved together.
            for part in (rows[chosen & (level[rows] % 2 == way)] for way in range(len(ways))):
                if len(part) == 0:
                    continue
                new = run(of_part, part, rounds)
                _put(result, part, new if isinstance(of_part, Exact) else _average(result, part, rounds, new))
        rounds += 1
    converged = np.hypot(result.stderr, solver_error) <= accuracy
    result = jax.tree.map(jnp.asarray, result)
    return dataclasses.replace(result, solver_error=jnp.asarray(solver_error), converged=jnp.asarray(converged))


def _unsure(result, stderr, target):
    """Where further probes are needed and help.

    A standard error is small enough where that of Student's t is, since those stop first that are too small by chance.
    """
    dof = np.maximum(result.dof, MIN_DOF)
    known = (stderr <= np.sqrt(1 - 2 / dof) * target) & (result.dof >= MIN_DOF)
    return ~known & np.isfinite(result.value)


def _average(result, rows, rounds, new):
    """Combine the mean of so many rounds with a new one; degrees of freedom are Welch and Satterthwaite's."""
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
