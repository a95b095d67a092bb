"""Systems of linear equations with covariances that are known by their products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

_TOLERANCE = 1e-5  # of the residual, relative to the right-hand side
_NEGATIVE = 1e-2  # Curvature below 0 that rounding may leave, as a share of the noise's.


def solve(covariance: Callable[[Array], Array], variance: Array, right: Array, iterations: int) -> Array:
    """Solve (S + diag(variance)) w = right by conjugate gradients, that stop where S is no covariance.

    Covariances are products with the Jacobian of a network, which need be neither symmetric nor positive where there is
    much noise. What would be found along a direction of negative variance is beyond all bounds, so that the iterations
    stop at the first one. Libraries go on there.

    Arguments:
        covariance: Function w -> S w.
        variance: Variance of the noise, of the shape of `right`.
        right: Right-hand side.
        iterations: Number of iterations. What they leave unsolved is left.

    Returns:
        The solution w, or what is found of it.
    """

    def dot(a, b):
        return jnp.sum(a * b)

    enough = _TOLERANCE**2 * dot(right, right)

    def step(state, _):
        w, residual, direction, square, goes_on = state
        product = covariance(direction)
        noise = dot(direction, variance * direction)
        curvature = dot(direction, product)
        goes_on = goes_on & (square > enough) & (curvature >= -_NEGATIVE * noise) & (curvature + noise > 0)
        length = jnp.where(goes_on, square / jnp.where(goes_on, curvature + noise, 1.0), 0.0)
        w = w + length * direction
        residual = residual - length * (product + variance * direction)
        following = dot(residual, residual)
        share = jnp.where(goes_on, following / jnp.where(goes_on, square, 1.0), 0.0)
        return (w, residual, residual + share * direction, following, goes_on), None

    start = jnp.zeros_like(right), right, right, dot(right, right), jnp.asarray(True)
    return jax.lax.scan(step, start, None, length=iterations)[0][0]
