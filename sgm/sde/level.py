"""The noise level l = log tan(theta) = log(sigma/alpha) = -log_snr/2, which has digits at both ends.

In single precision theta has none left near pi/2: above sigma/alpha = 1e7 it is rounded beyond it. Its cosine and its
sine are functions of l that are exact to rounding everywhere, also at l = inf, which is pure noise.
"""

from typing import Any

import jax
import jax.numpy as jnp

LARGEST_LEVEL = 20.0
"""Beyond it, sigma/alpha > 5e8, nothing of the data is seen: solves begin, and networks are called, at most here."""


def cos_of(level: Any) -> Any:
    """cos(theta) = alpha/rho.

    Arguments:
        level: Noise levels l = log tan(theta), of any shape.

    Returns:
        Numbers from 0 to 1, of that shape.

    Example:
        >>> level = sgm.VP().level(0.3)
        >>> u = cos_of(level) * x + sin_of(level) * jr.normal(key, x.shape)
    """
    return _cos_and_sin(level)[0]


def sin_of(level: Any) -> Any:
    """sin(theta) = sigma/rho.

    Arguments:
        level: Noise levels l = log tan(theta), of any shape.

    Returns:
        Numbers from 0 to 1, of that shape.

    Example:
        >>> float(sin_of(jnp.inf))  # pure noise
        1.0
    """
    return _cos_and_sin(level)[1]


def theta_of(level: Any) -> Any:
    """The angle theta.

    Arguments:
        level: Noise levels l = log tan(theta), of any shape.

    Returns:
        Angles from 0 to pi/2, in radians, of that shape.

    Example:
        >>> round(float(theta_of(0.0)), 4)  # pi/4: as much noise as data
        0.7854
    """
    cos, sin = _cos_and_sin(level)
    return jnp.arctan2(sin, cos)


def removed(s: Any, t: Any) -> Any:
    """1 - exp(2 (l_s - l_t)), the share of the noise's variance at level t that a step down to level s replaces."""
    return -jnp.expm1(2 * (s - t))


def clock_of(level: Any) -> Any:
    """c = log(1 + log(1 + tan(theta))), on which adaptive solves of the probability flow run, elementwise.

    It is nearly theta at the data's end, where it keeps the digits of a small angle, and grows without bound at the
    noise's end, where theta has no digits left.
    """
    return jnp.log1p(jax.nn.softplus(level))


def level_at(clock: Any) -> Any:
    """The level at which `clock_of` equals `clock`."""
    inner = jnp.expm1(clock)
    return inner + jnp.log(-jnp.expm1(-inner))


def angle_rate(level: Any) -> Any:
    """d theta / d clock of `clock_of`."""
    cos, sin = _cos_and_sin(level)
    return cos * sin * (1 + jax.nn.softplus(level)) / jax.nn.sigmoid(level)


def angle_between(low: Any, high: Any) -> Any:
    """theta(high) - theta(low) of two levels, with digits at both ends."""
    rising = jnp.arctan(jnp.exp(high)) - jnp.arctan(jnp.exp(low))
    falling = jnp.arctan(jnp.exp(-low)) - jnp.arctan(jnp.exp(-high))
    return jnp.where(low + high > 0, falling, rising)


def _cos_and_sin(level):
    level = jnp.asarray(level, jnp.result_type(float)) if not hasattr(level, "dtype") else level
    # By exp(-|l|), which neither overflows nor has a derivative that does.
    noisy = level > 0
    small = jnp.exp(jnp.where(noisy, -level, level))
    large = 1 / jnp.sqrt(1 + small**2)
    return jnp.where(noisy, small * large, large), jnp.where(noisy, large, small * large)
