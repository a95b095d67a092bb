"""Images of half and of twice the height and width."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.convolution import Convolution
from sgm.nn.layers import Image
from sgm.nn.unet import double

Halved = Float[Array, "half_height half_width channels"]
Doubled = Float[Array, "twice_height twice_width channels"]


class Downsample2D(eqx.Module):
    """A convolution of stride 2. With padding 0, a row of zeros lies below and a column to the right."""

    conv: Convolution
    padding: int = eqx.field(static=True)

    def __init__(self, channels: int, padding: int, *, key: PRNGKeyArray):
        self.conv, self.padding = Convolution(channels, channels, key=key), padding

    def __call__(self, x: Image, embedded: Array, key: PRNGKeyArray | None) -> Halved:
        """Halve the image. `embedded` and `key` are not used."""
        return every_other(self.conv, x, (self.padding, self.padding or 1))


class Upsample2D(eqx.Module):
    """Each pixel repeated along both axes, then a convolution."""

    conv: Convolution

    def __init__(self, channels: int, *, key: PRNGKeyArray):
        self.conv = Convolution(channels, channels, key=key)

    def __call__(self, x: Image, embedded: Array, key: PRNGKeyArray | None) -> Doubled:
        """Double the image. `embedded` and `key` are not used."""
        return self.conv(double(x))


def every_other(conv: Convolution, x: Image, padding: tuple[int, int]) -> Halved:
    """A convolution of stride 2, with `padding` zeros before and behind along each axis."""
    halved = jax.lax.conv_general_dilated(
        x[None], conv.kernel.astype(x.dtype), (2, 2), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return halved[0] + conv.bias.astype(x.dtype)


def fir_halve(x: Image) -> Halved:
    """Every other pixel of the image filtered by (1, 3, 3, 1) / 8 along each axis, with zeros outside.

    Reference: Karras et al. 2020 (arXiv:1912.04958), as in Song et al. 2021 (arXiv:2011.13456, appendix H).
    """
    return fir_halve_inside(jnp.pad(x, ((1, 1), (1, 1), (0, 0))))


def fir_halve_inside(x: Float[Array, "padded_height padded_width channels"]) -> Halved:
    """`fir_halve` of an image that already has one more pixel at each side."""
    for axis in (0, 1):
        size = x.shape[axis] - 2
        first, second, third, fourth = (
            jax.lax.slice_in_dim(x, start, start + size - 1, stride=2, axis=axis) for start in range(4)
        )
        x = (first + fourth + 3 * (second + third)) / 8
    return x


def fir_double(x: Image) -> Doubled:
    """The image with zeros between its pixels, filtered by (1, 3, 3, 1) / 4 along each axis, with zeros outside."""
    for axis in (0, 1):
        size = x.shape[axis]
        padded = _with_ends(x, axis)
        before, after = (jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in (0, 2))
        pairs = jnp.stack([(before + 3 * x) / 4, (3 * x + after) / 4], axis=axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def _with_ends(x, axis):
    return jnp.pad(x, [(1, 1) if place == axis else (0, 0) for place in range(x.ndim)])
