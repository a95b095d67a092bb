"""Initial values of weights."""

import math

import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

_LARGEST = 2**20  # numbers that are drawn at once beyond which only whole multiples are


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], reach: float) -> Float[Array, "..."]:
    """Draw numbers between -reach and reach: those of `jax.random.uniform`, in a fraction of its time.

    Its compilation takes a second for each new shape, of which a network has dozens. JAX draws a number by its place
    alone, whatever the shape. So more are drawn than are needed, of a few round counts, and the first ones taken.

    Arguments:
        key: Key of the numbers.
        shape: Shape of the result.
        reach: Largest absolute value.

    Returns:
        Array of the shape.
    """
    count = math.prod(shape)
    power = 4 ** -((count - 1).bit_length() // -2)  # the least power of 4 that is enough
    drawn = power if count <= _LARGEST else -(count // -_LARGEST) * _LARGEST
    return jr.uniform(key, (drawn,), minval=-reach, maxval=reach)[:count].reshape(shape)
