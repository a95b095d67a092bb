"""Systems of linear equations with symmetric positive matrices that are known by their products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array


def solve(matrix: Callable[[Array], Array], right: Array, iterations: int) -> Array:
    """Solve `matrix(w) = right`: directly where that takes no more products, else by conjugate gradients.

    Arguments:
        matrix: Function w -> M w, with M symmetric and positive.
        right: Right-hand side.
        iterations: Largest number of products. What they leave unsolved is left.

    Returns:
        The solution w, or what is found of it.
    """
    if right.size <= iterations:
        basis = jnp.eye(right.size, dtype=right.dtype).reshape(right.size, *right.shape)
        columns = jax.vmap(matrix)(basis).reshape(right.size, right.size)
        direct = lineax.linear_solve(
            lineax.MatrixLinearOperator(columns.T), right.reshape(-1), lineax.LU(), throw=False
        )
        return direct.value.reshape(right.shape)
    structure = jax.eval_shape(lambda: right)
    operator = lineax.FunctionLinearOperator(matrix, structure, lineax.positive_semidefinite_tag)
    tolerance = 100 * float(jnp.finfo(right.dtype).eps)
    solver = lineax.CG(rtol=tolerance, atol=0.0, max_steps=iterations)
    return lineax.linear_solve(operator, right, solver, throw=False).value
