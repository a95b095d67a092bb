"""Linear observations of images, signals and tables, for `Linear`. Each is a function of one example."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sgm.checks import check_at_least, check_count
from sgm.random import normal
from sgm.types import Example, Number


class Mask(eqx.Module):
    """The entries under a mask, as a vector.

    Arguments:
        mask: Truth values of the shape of an example, true where an entry is observed.

    Example:
        >>> operator = Mask(jnp.asarray([True, False, True]))
        >>> operator(jnp.asarray([1.0, 2.0, 3.0]))
        Array([1., 3.], dtype=float32)
        >>> evidence = sgm.posterior.Linear(operator, jnp.asarray([0.9, 3.2]), std=0.1)
    """

    mask: Bool[Array, "*shape"]
    places: Int[Array, " observed"]

    def __init__(self, mask: Bool[Array | np.ndarray, "*shape"]):
        self.mask, self.places = jnp.asarray(mask), jnp.flatnonzero(jnp.asarray(mask))

    def __call__(self, x: Example) -> Float[Array, " observed"]:
        return x.reshape(-1)[self.places]


class Blur(eqx.Module):
    """Convolution with a Gaussian over the axes of space, which are periodic.

    Arguments:
        width: Standard deviation of the Gaussian, in pixels.

    Raises:
        ValueError: for a negative width.

    Example:
        >>> image = jr.normal(key, (16, 16, 1))
        >>> blurred = Blur(1.5)(image)
        >>> evidence = sgm.posterior.Linear(Blur(1.5), blurred, std=0.05)
    """

    width: Number

    def __check_init__(self):
        check_at_least("Blur", "width", self.width, 0)

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*space channels"]:
        axes = tuple(range(x.ndim - 1))
        frequencies = np.meshgrid(*(np.fft.fftfreq(size) for size in x.shape[:-1]), indexing="ij")
        square = sum(frequency**2 for frequency in frequencies)
        response = jnp.exp(-2 * (math.pi * self.width) ** 2 * jnp.asarray(square, x.dtype))[..., None]
        transformed = jnp.fft.fftn(x, axes=axes)
        return jnp.fft.ifftn(transformed * response.astype(transformed.dtype), axes=axes).real


class Downsample(eqx.Module):
    """Means over blocks of pixels.

    Arguments:
        factor: Pixels along each side of a block.

    Raises:
        TypeError: for a factor that is not whole.
        ValueError: for a factor below 1; when it is called, for one that does not divide the axes of space.

    Example:
        >>> Downsample(4)(jnp.ones((28, 28, 1))).shape
        (7, 7, 1)
        >>> coarse = Downsample(4)(jr.normal(key, (28, 28, 1)))
        >>> evidence = sgm.posterior.Linear(Downsample(4), coarse, std=0.1)
    """

    factor: int = eqx.field(static=True)

    def __check_init__(self):
        check_count("Downsample", "factor", self.factor)

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*coarse channels"]:
        if any(size % self.factor for size in x.shape[:-1]):
            raise ValueError(f"Downsample: factor = {self.factor} does not divide the axes {x.shape[:-1]} of space.")
        blocks = itertools.chain.from_iterable((size // self.factor, self.factor) for size in x.shape[:-1])
        return jnp.mean(x.reshape(*blocks, x.shape[-1]), axis=tuple(range(1, 2 * (x.ndim - 1), 2)))


class Projections(eqx.Module):
    """Products with random directions of length 1.

    Arguments:
        shape: Shape of an example.
        count: Number of directions.
        key: Key of the directions.

    Example:
        >>> operator = Projections((28, 28, 1), count=100, key=key)
        >>> operator(jnp.ones((28, 28, 1))).shape
        (100,)
    """

    directions: Float[Array, "count *shape"]

    def __init__(self, shape: tuple[int, ...], count: int, key: PRNGKeyArray):
        directions = normal(key, (count, math.prod(shape)))
        directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
        self.directions = directions.reshape(count, *shape)

    def __call__(self, x: Example) -> Float[Array, " count"]:
        return jnp.tensordot(self.directions, x, axes=x.ndim)


class LineSums(eqx.Module):
    """Sums along parallel lines through an image at several angles, as of a tomogram.

    Pixels share their value between the two lines next to their centre. Lines are a pixel apart.

    Arguments:
        angles: Angles of the lines' normal, in radians.

    Example:
        >>> operator = LineSums((0.0, 0.5, 1.0))
        >>> operator(jnp.ones((28, 28, 1))).shape  # three angles, and the lines, a pixel apart, that cover the diagonal
        (3, 41, 1)
        >>> evidence = sgm.posterior.Linear(operator, jnp.zeros((3, 41, 1)), std=1.0)
    """

    angles: tuple[float, ...] = eqx.field(static=True, converter=lambda angles: tuple(float(angle) for angle in angles))

    def __call__(self, x: Float[Array, "height width channels"]) -> Float[Array, "angles lines channels"]:
        height, width, channels = x.shape
        lines = math.ceil(math.hypot(height, width)) + 1
        rows, columns = np.meshgrid(
            np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij"
        )

        def sums(angle):
            place = (lines - 1) / 2 + rows * np.sin(angle) + columns * np.cos(angle)
            first = np.floor(place).astype(int).reshape(-1)
            share = (place.reshape(-1) - first)[:, None].astype(x.dtype)
            values = x.reshape(-1, channels)
            empty = jnp.zeros((lines + 1, channels), x.dtype)
            return empty.at[first].add((1 - share) * values).at[first + 1].add(share * values)[:lines]

        return jnp.stack([sums(angle) for angle in self.angles])


class Convolve(eqx.Module):
    """Convolution of signals with a kernel along their length, whose ends are cut off where it does not fit.

    Arguments:
        kernel: Kernel, of shape (taps,), the same for every channel.

    Example:
        >>> Convolve([0.5, 0.5])(jnp.asarray([[1.0], [3.0], [7.0]]))
        Array([[2.],
               [5.]], dtype=float32)
    """

    kernel: Float[Array, " taps"] = eqx.field(converter=jnp.asarray)

    def __call__(self, x: Float[Array, "length channels"]) -> Float[Array, "shorter channels"]:
        return jax.vmap(lambda channel: jnp.convolve(channel, self.kernel, "valid"), in_axes=-1, out_axes=-1)(x)
