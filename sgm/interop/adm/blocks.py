"""Layers of ADM's network. Attributes have the names of the tensors in its checkpoints.

Sequences are tuples, with None for layers without tensors, so that the other layers keep their numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.interop.timestep.attention import attend_pixels
from sgm.interop.timestep.resampling import Doubled, Halved, every_other
from sgm.interop.timestep.residual import residual
from sgm.nn.convolution import Convolution
from sgm.nn.layers import Features, GroupNorm, Image, Linear
from sgm.nn.unet import double, halve

_GROUPS, _EPS = 32, 1e-5


class ResBlockOptions(NamedTuple):
    """Options of all residual blocks of a network.

    Arguments:
        embedding: Width of the embedding.
        dropout: Probability with which a feature is dropped in training.
        is_scaled: Whether the embedding scales and shifts the second norm; otherwise it is added before that norm.
    """

    embedding: int
    dropout: float
    is_scaled: bool


class ResBlock(eqx.Module):
    """Two convolutions beside a shortcut.

    With `resample`, `halve` or `double`, both branches change their resolution before the first convolution.
    """

    in_layers: tuple[GroupNorm, None, Convolution]
    emb_layers: tuple[None, Linear]
    out_layers: tuple[GroupNorm, None, None, Convolution]
    skip_connection: Convolution | None
    resample: Callable | None = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    is_scaled: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        options: ResBlockOptions,
        *,
        resample: Callable | None = None,
        key: PRNGKeyArray,
    ):
        key_in, key_out, key_embedding, key_skip = jr.split(key, 4)
        embedding = Linear(options.embedding, 2 * outputs if options.is_scaled else outputs, key=key_embedding)
        self.in_layers = (norm_of_32_groups(inputs), None, Convolution(inputs, outputs, key=key_in))
        self.emb_layers = (None, embedding)
        self.out_layers = (norm_of_32_groups(outputs), None, None, Convolution(outputs, outputs, key=key_out))
        self.skip_connection = None if inputs == outputs else Convolution(inputs, outputs, size=1, key=key_skip)
        self.resample, self.dropout, self.is_scaled = resample, options.dropout, options.is_scaled

    def __call__(
        self, x: Image, embedded: Features, key: PRNGKeyArray | None
    ) -> Float[Array, "new_height new_width outputs"]:
        norm_in, _, conv_in = self.in_layers
        norm_out, _, _, conv_out = self.out_layers
        return residual(
            x,
            self.emb_layers[1](jax.nn.silu(embedded)),
            (norm_in, conv_in),
            (norm_out, conv_out),
            self.skip_connection,
            key,
            is_scaled=self.is_scaled,
            rate=self.dropout,
            resample=self.resample,
        )


class AttentionBlock(eqx.Module):
    """Softmax attention among the pixels, added to its input.

    With `is_new_order`, the channels are all queries, then all keys, then all values; otherwise the heads come one
    after another.
    """

    norm: GroupNorm
    qkv: Convolution
    proj_out: Convolution
    heads: int = eqx.field(static=True)
    is_new_order: bool = eqx.field(static=True)

    def __init__(self, channels: int, heads: int, is_new_order: bool, *, key: PRNGKeyArray):
        if channels % heads:
            raise ValueError(
                f"UNetModel: {heads} heads do not divide {channels} channels; pass another number of heads."
            )
        key_qkv, key_out = jr.split(key)
        self.norm = norm_of_32_groups(channels)
        # Of rank 1, as in the checkpoints.
        self.qkv = Convolution(channels, 3 * channels, size=1, rank=1, key=key_qkv)
        self.proj_out = Convolution(channels, channels, size=1, rank=1, key=key_out)
        self.heads, self.is_new_order = heads, is_new_order

    def __call__(self, x: Image, embedded: Features, key: PRNGKeyArray | None) -> Image:
        """Attend. `embedded` and `key` are not used."""
        height, width, channels = x.shape
        qkv = self.qkv(self.norm(x).reshape(-1, channels)).reshape(height, width, -1)
        mixed = attend_pixels(qkv, self.heads, "t h c" if self.is_new_order else "h t c")
        return x + self.proj_out(mixed.reshape(-1, channels)).reshape(x.shape)


class Downsample(eqx.Module):
    """A convolution of stride 2, or the means of 2 x 2 pixels without one."""

    op: Convolution | None

    def __init__(self, channels: int, convolves: bool, *, key: PRNGKeyArray):
        self.op = Convolution(channels, channels, key=key) if convolves else None

    def __call__(self, x: Image, embedded: Features, key: PRNGKeyArray | None) -> Halved:
        """Halve the image. `embedded` and `key` are not used."""
        return halve(x) if self.op is None else every_other(self.op, x, (1, 1))


class Upsample(eqx.Module):
    """Each pixel repeated along both axes, then a convolution if there is one."""

    conv: Convolution | None

    def __init__(self, channels: int, convolves: bool, *, key: PRNGKeyArray):
        self.conv = Convolution(channels, channels, key=key) if convolves else None

    def __call__(self, x: Image, embedded: Features, key: PRNGKeyArray | None) -> Doubled:
        """Double the image. `embedded` and `key` are not used."""
        return double(x) if self.conv is None else self.conv(double(x))


def norm_of_32_groups(channels: int) -> GroupNorm:
    """The norm of all layers."""
    return GroupNorm(channels, _GROUPS, _EPS)
