"""Discrete data: `count` levels, each a bin of width (high - low) / count of the real interval [low, high)."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer, PRNGKeyArray

from sgm.checks import check_at_least, is_traced
from sgm.random import uniform
from sgm.types import Number


def check_levels(call: str, levels, count: int, low: Number, high: Number) -> None:
    """Raise unless concrete levels are integers from 0 to count - 1; traced ones pass."""
    check_at_least(call, "count", count)
    if not is_traced((low, high)) and not low < high:
        raise ValueError(f"{call}: low = {low}, high = {high}; pass low < high.")
    if not is_traced(levels) and np.size(levels):
        levels = np.asarray(levels)
        dtype = levels.dtype
        if not np.issubdtype(dtype, np.integer):
            raise ValueError(f"{call}: levels have dtype {dtype}; pass integers, or take real numbers as they are.")
        least, most = int(np.min(levels)), int(np.max(levels))
        if least < 0 or most >= count:
            raise ValueError(
                f"{call}: levels lie in {least} ... {most}; pass levels from 0 to count - 1 = {count - 1}, "
                "or another count."
            )


def dequantise(
    levels: Integer[ArrayLike, "..."], count: int, key: PRNGKeyArray, low: Number = -1.0, high: Number = 1.0
) -> Float[Array, "..."]:
    """Draw x = low + (high - low) (level + noise) / count with noise ~ U[0, 1), uniform within each level's bin.

    Arguments:
        levels: Integers from 0 to count - 1.
        count: Number of levels.
        key: Key of the noise.
        low: Lower end of the range that the levels fill.
        high: Upper end of the range that the levels fill.

    Returns:
        Real numbers in [low, high).

    Raises:
        ValueError: for levels that are no integers or are out of range, and low >= high.

    Example:
        >>> x = dequantise(jnp.asarray([0, 128, 255]), 256, key)
        >>> quantise(x, 256).tolist()
        [0, 128, 255]

    Reference: Uria et al. 2013 (arXiv:1306.0186); Theis et al. 2016 (arXiv:1511.01844, section 3.1).
    """
    check_levels("dequantise", levels, count, low, high)
    levels = jnp.asarray(levels)
    noise = uniform(key, levels.shape)
    return low + (high - low) / count * (levels.astype(noise.dtype) + noise)


def quantise(x: Float[ArrayLike, "..."], count: int, low: Number = -1.0, high: Number = 1.0) -> Integer[Array, "..."]:
    """Find the level in whose bin each number lies.

    Arguments:
        x: Real numbers; those outside [low, high) go to the nearest level.
        count: Number of levels.
        low: Lower end of the range that the levels fill.
        high: Upper end of the range that the levels fill.

    Returns:
        Integers from 0 to count - 1.

    Example:
        >>> quantise(jnp.asarray([-1.0, 0.0, 0.99, 1.2]), 4).tolist()
        [0, 2, 3, 3]
    """
    check_at_least("quantise", "count", count)
    position = (jnp.asarray(x) - low) * (count / (high - low))
    return jnp.clip(jnp.floor(position), 0, count - 1).astype(int)


def bits_per_dim(
    log_prob: Float[ArrayLike, "*batch"],
    dim: int,
    *,
    levels: int | None = 256,
    low: Number = -1.0,
    high: Number = 1.0,
) -> Float[Array, "*batch"]:
    """Bits per dimension, -(log_prob / dim + log bin) / log 2 with bin = (high - low) / levels.

    Averaged over the noise of uniform dequantisation, they bound those of the levels from above.

    Arguments:
        log_prob: Log-density of dequantised data in nats; or log-probability of the levels, with `levels=None`.
        dim: Number of entries of an example.
        levels: Number of levels; None where `log_prob` is of the levels themselves, so that nothing is added.
        low: Lower end of the range that the levels fill.
        high: Upper end of the range that the levels fill.

    Returns:
        Bits per dimension.

    Raises:
        ValueError: for `dim` or `levels` below 1, and low >= high.

    Example:
        >>> log_p = -3072 * np.log(2)  # of the uniform density on [-1, 1), which has 256 levels
        >>> float(bits_per_dim(log_p, 3072))
        8.0

    Reference: Theis et al. 2016 (arXiv:1511.01844, eq. 2).
    """
    check_at_least("bits_per_dim", "dim", dim)
    nats = jnp.asarray(log_prob) / dim
    if levels is not None:
        check_at_least("bits_per_dim", "levels", levels)
        if not is_traced((low, high)) and not low < high:
            raise ValueError(f"bits_per_dim: low = {low}, high = {high}; pass low < high.")
        nats = nats + jnp.log(jnp.asarray((high - low) / levels))
    return -nats / math.log(2)
