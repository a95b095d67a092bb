"""The network of Sohl-Dickstein et al. 2015, in which the noise level enters by a linear readout alone.

    network(level, u)[..., i] = sum over j of coefficients(u)[..., i, j] bump_j(position(level))

So one pass through it has the answer at every noise level, and the position is all it is told of a chain: 2 k/N - 1.
"""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_count
from sgm.nn.conditioning import Conditioning, Embedding, join_image
from sgm.nn.convolution import Convolution
from sgm.nn.layers import (
    Image,
    Linear,
    Precision,
    check_divisible,
    check_options,
    check_shape,
    check_space,
    dropout,
    key_stream,
    modulate,
    to_precision,
    zeros_like,
)
from sgm.nn.network import AbstractNetwork
from sgm.nn.unet import double, halve


def bumps(position: Float[Array, ""], count: int) -> Float[Array, " count"]:
    """`count` Gaussian bumps at a position in [-1, 1], divided by their sum.

    Their centres are even, from -1 to 1, and their standard deviation is half the distance of two, 1 / (count - 1).
    """
    centres = jnp.linspace(-1, 1, count, dtype=position.dtype)
    return jax.nn.softmax(-0.5 * ((count - 1) * (position - centres)) ** 2)


class MultiScaleConvolution(eqx.Module):
    """Convolutions of an image and of its means over squares of 2, 4, 8 ... pixels a side, one of each scale.

    Each is followed by its leaky ReLU; their mean over the scales, on the grid of the image, is returned.
    """

    convolutions: list[Convolution]

    def __init__(self, inputs: int, outputs: int, scales: int, *, key: PRNGKeyArray):
        self.convolutions = [Convolution(inputs, outputs, key=scale_key) for scale_key in jr.split(key, scales)]

    def __call__(self, x: Image) -> Float[Array, "height width outputs"]:
        return self._sum(x, self.convolutions) / len(self.convolutions)

    def _sum(self, x, convolutions):
        finest, *coarser = convolutions
        y = _leaky_relu(finest(x))
        return y + double(self._sum(halve(x), coarser)) if coarser else y


class Dense(eqx.Module):
    """A linear layer over the last axis, and its leaky ReLU."""

    linear: Linear

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        self.linear = Linear(inputs, outputs, key=key)

    def __call__(self, x: Float[Array, "*space inputs"]) -> Float[Array, "*space outputs"]:
        return _leaky_relu(self.linear(x))


class ConvDense(AbstractNetwork):
    """Convolutions beside a dense network of all pixels, under a small dense network of each pixel by itself.

    The output starts at zero. The features of the two lower parts are divided by the square root of their number and
    joined. Height and width must be divisible by 2^(scales - 1). The network of 2015 has two outputs, the mean's
    coefficients and the variance's, as `sgm.model.WithVariance` reads them.

    Arguments:
        shape: Shape of one example, (*space, channels).
        convolutions: Number of convolutional layers; by default 4 for images, else none.
        width: Number of channels of a convolutional layer.
        scales: Number of scales at which each convolutional layer acts.
        dense: Number of layers of the network of all pixels.
        dense_width: Number of units of these layers, but for the last.
        dense_outputs: Number of units of the last of these layers for each pixel. Planar data have a single pixel,
            which wants many.
        upper: Number of layers of the network of each pixel, of which the last is linear.
        upper_width: Number of units of these layers, but for the last.
        bumps: Number of bumps of the readout.
        noise_levels: Levels log tan(theta) at the steps k = 1 ... N of a chain, `-chain.log_snr(np.arange(1, N + 1)) /
            2`, never trained. Then the position is that of k evenly from -1 to 1, linear in between. By default it is
            tanh(level) = 2 sin(theta)^2 - 1, which is 2 k/N - 1 where every step destroys a like share of the data's
            variance, as those of 2015 do.
        outputs: Number of outputs of each entry, one after the other along the last axis; by default 2, as
            `sgm.model.WithVariance` reads them.
        dropout: Probability with which a hidden unit is dropped in training.
        conditioning: What the network is conditioned on. An image joins the input, of the convolutions as channels; the
            rest scales and shifts the joined features.
        precision: Precision in which the layers compute; parameters, embedding and output keep their own.
        remat: Whether to compute each layer's activations again for its gradient: less memory, more time.
        key: Key of the initial weights.

    Raises:
        TypeError: for a width or another size that is no integer.
        ValueError: for sizes below 1, fewer than two bumps, neither convolutions nor dense layers, convolutions of what
            are no images, images that the scales do not divide, and noise levels that do not increase.

    Example:
        >>> network = ConvDense((8, 8, 1), scales=2, key=jr.key(0))  # of two outputs
        >>> model = sgm.ScoreModel(network, sgm.model.WithVariance(), shape=(8, 8, 1))

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, appendix D.2.1), by its published code (`MLP_conv_dense`),
    whose defaults these are. Its network for CIFAR-10 is `ConvDense((32, 32, 3), convolutions=6, width=100, dense=6,
    dense_width=1000, dense_outputs=5, upper=4, upper_width=100)`.
    """

    convolution_layers: list[MultiScaleConvolution]
    dense_layers: list[Dense]
    embedding: Embedding | None
    modulation: Linear | None
    upper_layers: list[Dense]
    outlet: Linear
    shape: tuple[int, ...] = eqx.field(static=True)
    convolutions: int | None = eqx.field(static=True)
    width: int = eqx.field(static=True)
    scales: int = eqx.field(static=True)
    dense: int = eqx.field(static=True)
    dense_width: int = eqx.field(static=True)
    dense_outputs: int = eqx.field(static=True)
    upper: int = eqx.field(static=True)
    upper_width: int = eqx.field(static=True)
    bumps: int = eqx.field(static=True)
    noise_levels: tuple[float, ...] | None = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    conditioning: Conditioning = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        convolutions: int | None = None,
        width: int = 20,
        scales: int = 1,
        dense: int = 4,
        dense_width: int = 500,
        dense_outputs: int = 2,
        upper: int = 2,
        upper_width: int = 20,
        bumps: int = 10,
        noise_levels: tuple[float, ...] | Float[np.ndarray | Array, " steps"] | None = None,
        outputs: int = 2,
        dropout: float = 0.0,
        conditioning: Conditioning = Conditioning(),
        precision: Precision = "float32",
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        check_shape("ConvDense", shape)
        self.shape, self.convolutions, self.width, self.scales = tuple(shape), convolutions, width, scales
        self.dense, self.dense_width, self.dense_outputs = dense, dense_width, dense_outputs
        self.upper, self.upper_width, self.bumps, self.outputs = upper, upper_width, bumps, outputs
        if convolutions is None:
            convolutions = 4 if len(shape) == 3 else 0
        sizes = {"width": width, "scales": scales, "dense_width": dense_width, "dense_outputs": dense_outputs}
        sizes |= {"upper": upper, "upper_width": upper_width, "outputs": outputs}
        check_options("ConvDense", dropout, precision, **sizes)
        _check_parts(convolutions, dense, bumps)
        if convolutions > 0:
            check_space("ConvDense", shape, (2,))
            check_divisible("ConvDense", shape, 2 ** (scales - 1), "resize the images, or use fewer scales")
        key_convolutions, key_dense, key_embedding, key_modulation, key_upper, key_outlet = jr.split(key, 6)
        *space, channels = shape
        pixels, image = math.prod(space), conditioning.image or (0,)
        features = (width if convolutions > 0 else 0) + (dense_outputs if dense > 0 else 0)

        def stack(layer, sizes, key):
            pairs = itertools.pairwise(sizes)
            return [layer(*pair, key=jr.fold_in(key, number)) for number, pair in enumerate(pairs)]

        def multi_scale(inputs, outputs, key):
            return MultiScaleConvolution(inputs, outputs, scales, key=key)

        self.convolution_layers = stack(multi_scale, [channels + image[-1], *[width] * convolutions], key_convolutions)
        everything = [pixels * channels + math.prod(image), *[dense_width] * (dense - 1), pixels * dense_outputs]
        self.dense_layers = stack(Dense, everything if dense > 0 else [], key_dense)
        self.embedding, self.modulation = None, None
        if conditioning != Conditioning():
            self.embedding = Embedding(4 * upper_width, conditioning, key=key_embedding)
            self.modulation = Linear(4 * upper_width, 2 * features, key=key_modulation)
        each = [features, *[upper_width] * (upper - 1)]
        self.upper_layers = stack(Dense, each, key_upper)
        self.outlet = zeros_like(Linear(each[-1], outputs * channels * bumps, key=key_outlet))
        self.noise_levels = None if noise_levels is None else _increasing(noise_levels)
        self.conditioning = conditioning
        self.dropout, self.precision, self.remat = dropout, precision, remat

    def __call__(
        self, level: Float[Array, ""], u: Float[Array, "*space channels"], cond=None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*space coefficients"]:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        return self.coefficients(u, cond, key) @ bumps(self.position(level), self.bumps).astype(u.dtype)

    def position(self, level: Float[Array, ""]) -> Float[Array, ""]:
        """Where in [-1, 1] the bumps are read at this noise level."""
        if self.noise_levels is None:
            return jnp.tanh(level)
        positions = jnp.linspace(-1, 1, len(self.noise_levels), dtype=level.dtype)
        return jnp.interp(level, jnp.asarray(self.noise_levels, level.dtype), positions)

    def coefficients(
        self, u: Float[Array, "*space channels"], cond=None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*space coefficients bumps"]:
        """What multiplies each bump, for every noise level."""
        keys = key_stream(key)
        image, modulation = self._condition(u, cond)
        parts = []
        if self.convolution_layers:
            parts.append(self._through(self.convolution_layers, join_image(u, image), keys))
        if self.dense_layers:
            inputs = u.reshape(-1) if image is None else jnp.concatenate([u.reshape(-1), image.reshape(-1)])
            parts.append(self._through(self.dense_layers, inputs, keys).reshape(*u.shape[:-1], -1))
        features = jnp.concatenate([part / part.shape[-1] ** 0.5 for part in parts], axis=-1)
        if modulation is not None:
            features = modulate(features, *modulation)
        output = self.outlet(self._through(self.upper_layers, features, keys))
        return output.reshape(*u.shape[:-1], -1, self.bumps).astype(u.dtype)

    def _condition(self, u, cond):
        if self.embedding is None or self.modulation is None:
            self.conditioning.check("network", cond)
            return None, None
        # At a fixed level, since the noise level of u is for the readout alone.
        embedded = self.embedding(jnp.zeros((), u.dtype), cond)
        modulation = self.modulation(to_precision(embedded, self.precision))
        return self.embedding.image(cond), jnp.split(modulation, 2)

    def _through(self, layers, x, keys):
        x = to_precision(x, self.precision)
        for layer in layers:
            x = dropout((eqx.filter_checkpoint(layer) if self.remat else layer)(x), self.dropout, next(keys))
        return x


def _leaky_relu(x):
    return jax.nn.leaky_relu(x, 0.05)


def _check_parts(convolutions, dense, bumps):
    check_count("ConvDense", "convolutions", convolutions, 0)
    check_count("ConvDense", "dense", dense, 0)
    if convolutions + dense == 0:
        raise ValueError("ConvDense: convolutions = 0, dense = 0; pass one of them >= 1.")
    check_count("ConvDense", "bumps", bumps, 2)  # One at each end of the chain.


def _increasing(levels):
    levels = np.asarray(levels, np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not np.all(np.diff(levels) > 0) or not np.all(np.isfinite(levels)):
        raise ValueError(
            f"ConvDense: noise_levels = {levels}; pass two or more, increasing: log tan(theta) at the steps of a chain."
        )
    return tuple(levels.tolist())
