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
    # Its residual is that of the recursion, which goes on falling where rounding stops the true one.
    return jax.scipy.sparse.linalg.cg(matrix, right, tol=1e-5, maxiter=iterations)[0]
