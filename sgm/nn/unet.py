import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.layers import (
    Convolution,
    Embedding,
    GroupNorm,
    Image,
    check_sizes,
    condition_part,
    dropout,
    key_stream,
    modulate,
    zeros_like,
)


class ResidualBlock(eqx.Module):
    """Two convolutions beside a shortcut; the second norm is scaled and shifted by the embedding."""

    norm1: GroupNorm
    conv1: Convolution
    modulation: eqx.nn.Linear
    norm2: GroupNorm
    conv2: Convolution
    shortcut: Convolution | None
    rate: float = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, embedding: int, rate: float, *, key: PRNGKeyArray):
        key1, key2, key_modulation, key_shortcut = jr.split(key, 4)
        self.norm1 = GroupNorm(inputs)
        self.conv1 = Convolution(inputs, outputs, key=key1)
        self.modulation = eqx.nn.Linear(embedding, 2 * outputs, key=key_modulation)
        self.norm2 = GroupNorm(outputs)
        self.conv2 = zeros_like(Convolution(outputs, outputs, key=key2))
        self.shortcut = Convolution(inputs, outputs, size=1, key=key_shortcut) if inputs != outputs else None
        self.rate = rate

    def __call__(self, x: Image, embedded, key) -> Float[Array, "height width outputs"]:
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        hidden = jax.nn.silu(modulate(self.norm2(hidden), self.modulation(embedded)))
        hidden = self.conv2(dropout(hidden, self.rate, key))
        return hidden + (x if self.shortcut is None else self.shortcut(x))


class SelfAttention(eqx.Module):
    """Softmax attention among the pixels, in heads of 64 channels, beside a shortcut."""

    norm: GroupNorm
    qkv: Convolution
    outlet: Convolution
    heads: int = eqx.field(static=True)

    def __init__(self, channels: int, *, key: PRNGKeyArray):
        key_qkv, key_outlet = jr.split(key)
        self.norm = GroupNorm(channels)
        self.qkv = Convolution(channels, 3 * channels, size=1, key=key_qkv)
        self.outlet = zeros_like(Convolution(channels, channels, size=1, key=key_outlet))
        self.heads = max(1, channels // 64)

    def __call__(self, x: Image) -> Image:
        q, k, v = rearrange(self.qkv(self.norm(x)), "h w (three n c) -> three (h w) n c", three=3, n=self.heads)
        mixed = rearrange(jax.nn.dot_product_attention(q, k, v), "(h w) n c -> h w (n c)", h=x.shape[0])
        return x + self.outlet(mixed)


class UNet(eqx.Module):
    """A channels-last U-net for images of `shape` (height, width, channels).

    Level i has `blocks` residual blocks of `width * multipliers[i]` channels on the way down and as many on the way
    up, each of which also reads its counterpart. Between levels the image is halved by a strided convolution, and
    doubled by repetition and a convolution. The lowest level attends among its pixels. Height and width must be
    divisible by 2^(levels - 1). `params`, `classes` and `image_channels` are the sizes of the conditions it is built
    for; an image condition joins the input as channels. The output starts at zero.

    Source: Ho et al. 2020 (arXiv:2006.11239, appendix B); Dhariwal and Nichol 2021 (arXiv:2105.05233).
    """

    embedding: Embedding
    inlet: Convolution
    down: list[list[ResidualBlock]]
    halve: list[Convolution]
    middle: tuple[ResidualBlock, SelfAttention, ResidualBlock]
    double: list[Convolution]
    up: list[list[ResidualBlock]]
    norm: GroupNorm
    outlet: Convolution
    image_channels: int = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        *,
        dropout: float = 0.0,
        params: int | None = None,
        classes: int | None = None,
        image_channels: int = 0,
        key: PRNGKeyArray,
    ):
        check_sizes("UNet", dropout, width=width, blocks=blocks, levels=len(multipliers), multiplier=min(multipliers))
        factor = 2 ** (len(multipliers) - 1)
        if shape[0] % factor or shape[1] % factor:
            raise ValueError(
                f"UNet: with {len(multipliers)} levels, height and width must be divisible by {factor}, but they are "
                f"{shape[:2]}; pass fewer multipliers, or resize the images."
            )
        keys = key_stream(key)
        widths = [width * multiplier for multiplier in multipliers]
        steps = list(itertools.pairwise(widths))
        features, lowest = 4 * width, widths[-1]

        def block(inputs, outputs):
            return ResidualBlock(inputs, outputs, features, dropout, key=next(keys))

        self.embedding = Embedding(features, params, classes, key=next(keys))
        self.inlet = Convolution(shape[-1] + image_channels, widths[0], key=next(keys))
        self.down = [[block(channels, channels) for _ in range(blocks)] for channels in widths]
        self.halve = [Convolution(fine, coarse, stride=2, key=next(keys)) for fine, coarse in steps]
        self.middle = (block(lowest, lowest), SelfAttention(lowest, key=next(keys)), block(lowest, lowest))
        self.double = [Convolution(coarse, fine, key=next(keys)) for fine, coarse in steps]
        self.up = [[block(2 * channels, channels) for _ in range(blocks)] for channels in widths]
        self.norm = GroupNorm(widths[0])
        self.outlet = zeros_like(Convolution(widths[0], shape[-1], key=next(keys)))
        self.image_channels = image_channels

    def __call__(self, level: Float[Array, ""], u: Image, cond=None, key: PRNGKeyArray | None = None) -> Image:
        """The output, of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        image = condition_part(cond, "image", expected=self.image_channels > 0)
        embedded = self.embedding(level, cond)
        keys = key_stream(key)
        hidden = self.inlet(u if image is None else jnp.concatenate([u, image], axis=-1))
        skips = []
        for depth, blocks in enumerate(self.down):
            if depth > 0:
                hidden = self.halve[depth - 1](hidden)
            for block in blocks:
                hidden = block(hidden, embedded, next(keys))
                skips.append(hidden)
        first, attention, second = self.middle
        hidden = second(attention(first(hidden, embedded, next(keys))), embedded, next(keys))
        for depth, blocks in reversed(list(enumerate(self.up))):
            for block in blocks:
                hidden = block(jnp.concatenate([hidden, skips.pop()], axis=-1), embedded, next(keys))
            if depth > 0:
                hidden = self.double[depth - 1](_repeat(hidden))
        return self.outlet(jax.nn.silu(self.norm(hidden)))


def _repeat(x):
    """Nearest-neighbour doubling of height and width."""
    return jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)
