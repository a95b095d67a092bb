"""Layers of EDM's networks. Attributes have the names of the tensors in its checkpoints."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.interop.timestep.attention import attend_pixels
from sgm.interop.timestep.resampling import fir_double, fir_halve, fir_halve_inside
from sgm.interop.timestep.residual import few_groups, residual
from sgm.nn.convolution import Convolution
from sgm.nn.frozen import Frozen
from sgm.nn.layers import Features, GroupNorm, Image, Linear
from sgm.nn.unet import double, halve


class Filter(NamedTuple):
    """How images are halved and doubled.

    Arguments:
        halve: Function that halves the height and width, with zeros outside.
        double: Function that doubles them.
        halve_inside: Function that halves an image that already has `padding` more pixels at each side.
        padding: Number of pixels beyond the border that it reads.
    """

    halve: Callable[[Any], Any]
    double: Callable[[Any], Any]
    halve_inside: Callable[[Any], Any]
    padding: int


FILTERS = {(1, 1): Filter(halve, double, halve, 0), (1, 3, 3, 1): Filter(fir_halve, fir_double, fir_halve_inside, 1)}
"""The filters by the values of `resample_filter`."""


class UNetBlockOptions(NamedTuple):
    """Options of all blocks of a network.

    Arguments:
        embedding: Width of the embedding.
        dropout: Probability with which a feature is dropped in training.
        eps: What is added to a norm's variance.
        skip_scale: Factor of the sum of two branches.
        filter: How images are halved and doubled.
        is_scaled: Whether the embedding scales and shifts the second norm; otherwise it is added before that norm.
        projects: Whether the shortcut has a convolution wherever the resolution changes.
    """

    embedding: int
    dropout: float
    eps: float
    skip_scale: float
    filter: Filter
    is_scaled: bool
    projects: bool


class UNetBlock(eqx.Module):
    """Two convolutions beside a shortcut, and attention among the pixels if there are heads.

    With `resample`, both branches change their resolution before the first convolution.
    """

    norm0: GroupNorm
    conv0: Convolution
    affine: Linear
    norm1: GroupNorm
    conv1: Convolution
    skip: Convolution | None
    norm2: GroupNorm | None
    qkv: Convolution | None
    proj: Convolution | None
    heads: int = eqx.field(static=True)
    resample: Callable | None = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    skip_scale: float = eqx.field(static=True)
    is_scaled: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        options: UNetBlockOptions,
        *,
        heads: int = 0,
        resample: Callable | None = None,
        key: PRNGKeyArray,
    ):
        key_0, key_1, key_affine, key_skip, key_qkv, key_proj = jr.split(key, 6)
        self.heads, self.resample, self.dropout = heads, resample, options.dropout
        self.skip_scale, self.is_scaled = options.skip_scale, options.is_scaled
        self.norm0 = GroupNorm(inputs, few_groups(inputs), options.eps)
        self.conv0 = Convolution(inputs, outputs, key=key_0)
        self.affine = Linear(options.embedding, 2 * outputs if options.is_scaled else outputs, key=key_affine)
        self.norm1 = GroupNorm(outputs, few_groups(outputs), options.eps)
        self.conv1 = Convolution(outputs, outputs, key=key_1)
        has_skip = inputs != outputs or (resample is not None and options.projects)
        self.skip = Convolution(inputs, outputs, size=1, key=key_skip) if has_skip else None
        self.norm2, self.qkv, self.proj = None, None, None
        if heads:
            self.norm2 = GroupNorm(outputs, few_groups(outputs), options.eps)
            self.qkv = Convolution(outputs, 3 * outputs, size=1, key=key_qkv)
            self.proj = Convolution(outputs, outputs, size=1, key=key_proj)

    def __call__(
        self, x: Image, embedded: Features, key: PRNGKeyArray | None
    ) -> Float[Array, "new_height new_width outputs"]:
        x = self.skip_scale * residual(
            x,
            self.affine(embedded),
            (self.norm0, self.conv0),
            (self.norm1, self.conv1),
            self.skip,
            key,
            is_scaled=self.is_scaled,
            rate=self.dropout,
            resample=self.resample,
        )
        if self.norm2 is None or self.qkv is None or self.proj is None:
            return x
        mixed = attend_pixels(self.qkv(self.norm2(x)), self.heads, "h c t")
        return self.skip_scale * (x + self.proj(mixed))


class FourierEmbedding(eqx.Module):
    """Sines, then cosines, of the timestep times 2 pi and random frequencies, which are never trained."""

    freqs: Frozen

    def __init__(self, features: int, *, key: PRNGKeyArray):
        self.freqs = Frozen(16 * jr.normal(key, (features // 2,)))

    def __call__(self, timestep: Float[Array, ""]) -> Features:
        angles = timestep * (2 * math.pi * self.freqs.value).astype(timestep.dtype)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def one_hot(call: str, label: Int[Array, ""] | None, classes: int, has_null: bool) -> Features:
    """A label as a one-hot vector: zeros for the null (None or the label `classes`), nan for an unknown label.

    Raises:
        ValueError: for None, where the network has no null.
    """
    if label is None and not has_null:
        raise ValueError(
            f"{call}: label = None, but the network reads one; pass a whole number from 0 to {classes - 1}."
        )
    if label is None:
        return jnp.zeros(classes)
    known = (label >= 0) & (label < classes + has_null)
    return jnp.where(known, jax.nn.one_hot(label, classes), jnp.nan)


def build_encoder(
    inputs: int,
    first: int,
    widths: Sequence[int],
    sizes: Sequence[str],
    blocks: int,
    options: UNetBlockOptions,
    heads: Callable[[int, int], int],
    keys: Iterator[Any],
) -> tuple[dict[str, Any], list[int]]:
    """Build the layers on the way down.

    Returns them by their names, and the numbers of channels of their outputs, which the way up reads.

    Arguments:
        inputs: Number of channels of the image.
        first: Number of channels after the first convolution.
        widths: Number of channels at each level.
        sizes: Name of each level, by its resolution.
        blocks: Number of blocks at each level.
        options: Options of all blocks.
        heads: Function of a block's level and channels that gives its number of heads.
        keys: Keys of the initial weights.
    """
    layers: dict[str, Any] = {f"{sizes[0]}_conv": Convolution(inputs, first, key=next(keys))}
    channels, read = first, [first]
    for level, (size, width) in enumerate(zip(sizes, widths, strict=True)):
        if level:
            layers[f"{size}_down"] = UNetBlock(
                channels, channels, options, resample=options.filter.halve, key=next(keys)
            )
            read.append(channels)
        for number in range(blocks):
            layers[f"{size}_block{number}"] = UNetBlock(
                channels, width, options, heads=heads(level, width), key=next(keys)
            )
            channels = width
            read.append(channels)
    return layers, read


def build_decoder(
    read: Sequence[int],
    widths: Sequence[int],
    sizes: Sequence[str],
    blocks: int,
    options: UNetBlockOptions,
    heads: Callable[[int, int, int], int],
    middle_heads: int,
    keys: Iterator[Any],
) -> dict[str, Any]:
    """Build the layers in the middle and on the way up, by their names.

    Arguments:
        read: Numbers of channels of the outputs on the way down, in their order.
        widths, sizes, blocks, options, keys: As in `build_encoder`, with one more block at each level.
        heads: Function of a block's level, number and channels that gives its number of heads.
        middle_heads: Number of heads of the first block.
    """
    layers: dict[str, Any] = {}
    channels, read, last = widths[-1], list(read), len(widths) - 1
    for level in range(last, -1, -1):
        size = sizes[level]
        if level == last:
            layers[f"{size}_in0"] = UNetBlock(channels, channels, options, heads=middle_heads, key=next(keys))
            layers[f"{size}_in1"] = UNetBlock(channels, channels, options, key=next(keys))
        else:
            layers[f"{size}_up"] = UNetBlock(
                channels, channels, options, resample=options.filter.double, key=next(keys)
            )
        for number in range(blocks + 1):
            layers[f"{size}_block{number}"] = UNetBlock(
                channels + read.pop(),
                widths[level],
                options,
                heads=heads(level, number, widths[level]),
                key=next(keys),
            )
            channels = widths[level]
    return layers


def go_up(
    layers: dict[str, Any], size: str, x: Image, states: list[Any], embedded: Features, blocks: int, keys: Iterator[Any]
) -> Float[Array, "new_height new_width outputs"]:
    """Apply one level on the way up. It takes outputs of the way down off the end of `states`."""
    for name in ("in0", "in1", "up"):
        if f"{size}_{name}" in layers:
            x = layers[f"{size}_{name}"](x, embedded, next(keys))
    for number in range(blocks + 1):
        x = layers[f"{size}_block{number}"](jnp.concatenate([x, states.pop()], axis=-1), embedded, next(keys))
    return x
