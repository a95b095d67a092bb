"""The residual block of U-nets that are told a timestep."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.convolution import Convolution
from sgm.nn.layers import Features, GroupNorm, Image, activated, dropout


def residual(
    x: Image,
    projected: Features,
    first: tuple[GroupNorm, Convolution],
    second: tuple[GroupNorm, Convolution],
    shortcut: Convolution | None,
    key: PRNGKeyArray | None,
    *,
    is_scaled: bool,
    rate: float,
    resample: Callable | None = None,
    act: Callable = jax.nn.silu,
) -> Float[Array, "new_height new_width outputs"]:
    """Add two convolutions of an image to the image.

    Arguments:
        x: Image.
        projected: Features of the timestep: the scale and then the shift of the second norm with `is_scaled`, otherwise
            what is added before it.
        first: First norm and convolution.
        second: Second norm and convolution.
        shortcut: Layer of the image on its way to the sum, None for the image itself.
        key: Key of the dropout, which is switched off without one.
        is_scaled: Whether the features scale and shift the second norm.
        rate: Probability with which a feature is dropped.
        resample: Change of the resolution, before the first convolution and the shortcut; None to keep it.
        act: Activation.

    Returns:
        The sum, of shape (new_height, new_width, outputs).
    """
    (norm_1, conv_1), (norm_2, conv_2) = first, second
    hidden = activated(norm_1, x, act=act)
    if resample is not None:
        x, hidden = resample(x), resample(hidden)
    hidden = conv_1(hidden)
    if is_scaled:
        scale, shift = jnp.split(projected, 2)
        hidden = activated(norm_2, hidden, shift, scale, act)
    else:
        hidden = activated(norm_2, hidden + projected, act=act)
    hidden = conv_2(dropout(hidden, rate, key))
    return (x if shortcut is None else shortcut(x)) + hidden


def few_groups(channels: int) -> int:
    """Number of groups of a norm: 32, or fewer, of four channels each."""
    return max(1, min(32, channels // 4))
