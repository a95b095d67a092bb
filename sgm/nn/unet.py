"""A UNet for images."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.conditioning import Conditioning, Embedding, join_image
from sgm.nn.convolution import Convolution
from sgm.nn.layers import (
    GroupNorm,
    Image,
    Linear,
    Outputs,
    Precision,
    SelfAttention,
    check_image_shape,
    check_options,
    dropout,
    key_stream,
    largest_divisor,
    modulate,
    to_precision,
    zeros_like,
)
from sgm.nn.network import AbstractNetwork

# Sums of two branches keep the variance of one. Source: Song et al. 2021 (arXiv:2011.13456, appendix H).
_SKIP_SCALE = 0.5**0.5


def halve(x: Image) -> Float[Array, "rows columns channels"]:
    """The means of squares of four pixels."""
    height, width, channels = x.shape
    return jnp.mean(x.reshape(height // 2, 2, width // 2, 2, channels), axis=(1, 3))


def double(x: Image) -> Float[Array, "rows columns channels"]:
    """Each pixel four times, as a square."""
    height, width, channels = x.shape
    return jnp.broadcast_to(x[:, None, :, None], (height, 2, width, 2, channels)).reshape(
        2 * height, 2 * width, channels
    )


class ResidualBlock(eqx.Module):
    """Two convolutions beside a shortcut, and attention among the pixels if it `attends`.

    The second norm is scaled and shifted by the embedding. With `resample`, `halve` or `double`, both branches change
    their resolution before the first convolution.
    """

    norm1: GroupNorm
    conv1: Convolution
    modulation: Linear
    norm2: GroupNorm
    conv2: Convolution
    shortcut: Convolution | None
    norm3: GroupNorm | None
    attention: SelfAttention | None
    resample: Callable | None = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        rate: float,
        *,
        resample: Callable | None = None,
        attends: bool = False,
        key: PRNGKeyArray,
    ):
        key1, key2, key_modulation, key_shortcut, key_attention = jr.split(key, 5)
        self.norm1 = GroupNorm(inputs)
        self.conv1 = Convolution(inputs, outputs, key=key1)
        self.modulation = Linear(embedding, 2 * outputs, key=key_modulation)
        self.norm2 = GroupNorm(outputs)
        self.conv2 = zeros_like(Convolution(outputs, outputs, key=key2))
        self.shortcut = Convolution(inputs, outputs, size=1, key=key_shortcut) if inputs != outputs else None
        self.norm3, self.attention = None, None
        if attends:
            attention = SelfAttention(outputs, largest_divisor(outputs, outputs // 64), key=key_attention)
            self.norm3 = GroupNorm(outputs)
            self.attention = eqx.tree_at(lambda layer: layer.outlet, attention, replace_fn=zeros_like)
        self.resample = resample
        self.rate = rate

    def __call__(self, x: Image, embedded, key) -> Float[Array, "rows columns outputs"]:
        hidden = jax.nn.silu(self.norm1(x))
        if self.resample is not None:
            x, hidden = self.resample(x), self.resample(hidden)
        hidden = self.conv1(hidden)
        shift, scale = jnp.split(self.modulation(embedded), 2)
        hidden = jax.nn.silu(modulate(self.norm2(hidden), shift, scale))
        hidden = self.conv2(dropout(hidden, self.rate, key))
        x = _SKIP_SCALE * ((x if self.shortcut is None else self.shortcut(x)) + hidden)
        if self.norm3 is None or self.attention is None:
            return x
        height, width, channels = x.shape
        mixed = self.attention(self.norm3(x).reshape(height * width, channels))
        return _SKIP_SCALE * (x + mixed.reshape(x.shape))


class UNet(AbstractNetwork):
    """A channels-last U-net for images, of the family of DDPM++ and ADM.

    Level i has images of height / 2^i and `width * multipliers[i]` channels. On the way down it has `blocks` residual
    blocks; on the way up it has one more, and each also reads a counterpart. Blocks of their own halve and double the
    image between levels. Height and width must be divisible by 2^(levels - 1). The output starts at zero.

    Arguments:
        shape: Shape of one example, (height, width, channels).
        width: Number of channels at the finest level, before its multiplier.
        multipliers: Number of channels at each level, as a multiple of the width, the finest first.
        blocks: Number of residual blocks at each level on the way down.
        attention: Heights of the levels whose blocks, but for those that change the level, attend among their pixels;
            at the lowest level one always does.
        outputs: Number of outputs of each entry, one after the other along the last axis; 2 for
            `sgm.model.WithVariance`.
        dropout: Probability with which a feature inside a block is dropped in training.
        conditioning: What the network is conditioned on; an image joins the input as channels.
        precision: Precision in which the blocks compute; parameters, embedding and output keep their own.
        remat: Whether to compute each block's activations again for its gradient: less memory, more time.
        key: Key of the initial weights.

    Reference: Song et al. 2021 (arXiv:2011.13456, appendix H); Dhariwal and Nichol 2021 (arXiv:2105.05233). After the
    DDPM++ of Karras et al. 2022 (arXiv:2206.00364, table 7) for CIFAR-10 is `UNet((32, 32, 3), 128, (2, 2, 2), 4,
    attention=(16,))`.
    """

    embedding: Embedding
    inlet: Convolution
    down: list[ResidualBlock]
    middle: list[ResidualBlock]
    up: list[ResidualBlock]
    norm: GroupNorm
    outlet: Convolution
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    multipliers: tuple[int, ...] = eqx.field(static=True)
    blocks: int = eqx.field(static=True)
    attention: tuple[int, ...] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        *,
        attention: tuple[int, ...] = (),
        outputs: int = 1,
        dropout: float = 0.0,
        conditioning: Conditioning = Conditioning(),
        precision: Precision = "float32",
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        sizes = {
            "width": width,
            "blocks": blocks,
            "outputs": outputs,
            "len(multipliers)": len(multipliers),
            "min(multipliers)": min(multipliers, default=1),
        }
        check_options("UNet", dropout, precision, **sizes)
        check_image_shape("UNet", shape, 2 ** (len(multipliers) - 1))
        heights = _heights(shape, len(multipliers), attention)
        keys = key_stream(key)
        channels = width
        skips = [channels]

        def block(inputs, level, resample=None, attends=False):
            options = {"resample": resample, "attends": attends, "key": next(keys)}
            return ResidualBlock(inputs, width * multipliers[level], 4 * width, dropout, **options)

        self.embedding = Embedding(4 * width, conditioning, key=next(keys))
        image_channels = conditioning.image[-1] if conditioning.image else 0
        self.inlet = Convolution(shape[-1] + image_channels, channels, key=next(keys))
        self.down, self.up = [], []
        for level, height in enumerate(heights):
            for resample in ([halve] if level > 0 else []) + [None] * blocks:
                self.down.append(block(channels, level, resample, not resample and height in attention))
                channels = width * multipliers[level]
                skips.append(channels)
        lowest = len(heights) - 1
        self.middle = [block(channels, lowest, attends=True), block(channels, lowest)]
        for level, height in reversed(list(enumerate(heights))):
            for resample in ([double] if level < lowest else []) + [None] * (blocks + 1):
                read = 0 if resample else skips.pop()
                self.up.append(block(channels + read, level, resample, not resample and height in attention))
                channels = width * multipliers[level]
        self.norm = GroupNorm(channels)
        self.outlet = zeros_like(Convolution(channels, outputs * shape[-1], key=next(keys)))
        self.shape, self.width, self.multipliers, self.blocks = tuple(shape), width, tuple(multipliers), blocks
        self.attention, self.outputs, self.dropout = tuple(attention), outputs, dropout
        self.precision, self.remat = precision, remat

    @property
    def conditioning(self) -> Conditioning:
        """What the network is conditioned on."""
        return self.embedding.conditioning

    def __call__(self, level: Float[Array, ""], u: Image, cond=None, key: PRNGKeyArray | None = None) -> Outputs:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        check_image_shape("UNet", u.shape, 2 ** sum(block.resample is halve for block in self.down))
        keys = key_stream(key)
        embedded = to_precision(self.embedding(level, cond), self.precision)

        def apply(block, hidden):
            return (eqx.filter_checkpoint(block) if self.remat else block)(hidden, embedded, next(keys))

        hidden = self.inlet(to_precision(join_image(u, self.embedding.image(cond)), self.precision))
        skips = [hidden]
        for block in self.down:
            hidden = apply(block, hidden)
            skips.append(hidden)
        for block in self.middle:
            hidden = apply(block, hidden)
        for block in self.up:
            hidden = apply(block, hidden if block.resample else jnp.concatenate([hidden, skips.pop()], axis=-1))
        return self.outlet(jax.nn.silu(self.norm(hidden))).astype(u.dtype)


def _heights(shape, levels, attention):
    """The height of each level; raise unless attention names some of them."""
    heights = [shape[0] // 2**level for level in range(levels)]
    for height in attention:
        if height not in heights:
            raise ValueError(f"UNet: attention = {attention}, but the levels have the heights {heights}; pass those.")
    return heights
