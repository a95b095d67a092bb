"""Random numbers of any shape: those of `jax.random`, to rounding, which compile in a fraction of the time.

JAX draws a number by its place alone, whatever the shape, and finds the place by the indices of all axes. XLA compiles
this two to five times as long for an image as for a line. So they are drawn in a line, and then given their shape.
"""

import math

import jax.random as jr
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from sgm.types import Number

_LARGEST = 2**20  # initial values that are drawn at once, beyond which only whole multiples are


def normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = float) -> Float[Array, "..."]:
    """Draw from N(0, 1): `jax.random.normal`."""
    return jr.normal(key, (math.prod(shape),), dtype).reshape(shape)


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = float) -> Float[Array, "..."]:
    """Draw uniformly between 0 and 1: `jax.random.uniform`."""
    return jr.uniform(key, (math.prod(shape),), dtype).reshape(shape)


def truncated_normal(key: PRNGKeyArray, reach: Number, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw from N(0, 1) between -reach and reach: `jax.random.truncated_normal`."""
    return jr.truncated_normal(key, -reach, reach, (math.prod(shape),)).reshape(shape)


def rademacher(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = float) -> Float[Array, "..."]:
    """Draw -1 or 1, each as often: `jax.random.rademacher`."""
    return jr.rademacher(key, (math.prod(shape),), dtype).reshape(shape)


def bernoulli(key: PRNGKeyArray, probability: Number, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Draw True with this probability: `jax.random.bernoulli`."""
    return jr.bernoulli(key, probability, (math.prod(shape),)).reshape(shape)


def initial(key: PRNGKeyArray, shape: tuple[int, ...], reach: float) -> Float[Array, "..."]:
    """Draw initial values uniformly between -reach and reach.

    A network has dozens of shapes, each a compilation where it is built outside `jax.jit`. So more are drawn than are
    needed, of a few round counts, and the first ones taken.
    """
    count = math.prod(shape)
    power = 4 ** -((count - 1).bit_length() // -2)  # the least power of 4 that is enough
    drawn = power if count <= _LARGEST else -(count // -_LARGEST) * _LARGEST
    return jr.uniform(key, (drawn,), minval=-reach, maxval=reach)[:count].reshape(shape)
