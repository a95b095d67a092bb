"""`UNetModel` of ADM."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.checks import check_at_least, check_count
from sgm.interop.adm.blocks import AttentionBlock, Downsample, ResBlock, ResBlockOptions, Upsample, norm_of_32_groups
from sgm.interop.timestep.embeddings import LabelEmbedding, sinusoids
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.nn.convolution import Convolution
from sgm.nn.layers import (
    Features,
    GroupNorm,
    Image,
    Linear,
    activated,
    check_divisible,
    check_input,
    check_options,
    key_stream,
)
from sgm.nn.unet import double, halve


class UNetModel(AbstractTimestepNetwork):
    """The U-net of ADM, with the arguments of ADM's own class.

    All norms have 32 groups, so numbers of channels must be multiples of 32.

    Arguments:
        image_size: Height and width of an image.
        in_channels: Number of channels of its input.
        model_channels: Base number of channels.
        out_channels: Number of channels of its output: twice those of an image where the variance is learned.
        num_res_blocks: Number of residual blocks at each level on the way down; on the way up there is one more.
        attention_resolutions: Factors by which the height is divided where blocks attend, such as 2, 4 and 8 for the
            heights 32, 16 and 8 of images of 64.
        dropout: Probability with which a feature is dropped in training.
        channel_mult: Number of channels at each level, divided by `model_channels`.
        conv_resample: Whether convolutions halve and double the resolution, where `resblock_updown` is False.
        num_classes: Number of labels, None for none.
        num_heads: Number of heads.
        num_head_channels: Number of channels of a head; -1 to share the channels among `num_heads`.
        num_heads_upsample: Number of heads on the way up; -1 for `num_heads`.
        use_scale_shift_norm: Whether the embedding scales and shifts the norms; otherwise it is added.
        resblock_updown: Whether residual blocks halve and double the resolution.
        use_new_attention_order: Whether attention has all queries first among its channels, not all of one head.
        key: Key of the initial weights.

    Raises:
        TypeError: for a number of channels or blocks that is no integer.
        ValueError: for sizes that do not fit each other.

    Example:
        >>> network = UNetModel(16, 3, 32, 6, 1, (2,), channel_mult=(1, 2), num_classes=10, key=key)
        >>> network.shape, network.outputs, network.classes  # with a learned variance
        ((16, 16, 3), 6, 10)

    Reference: Dhariwal and Nichol 2021 (arXiv:2105.05233).
    """

    time_embed: tuple[Linear, None, Linear]
    label_emb: LabelEmbedding | None
    input_blocks: list[list[Any]]
    middle_block: tuple[ResBlock, AttentionBlock, ResBlock]
    output_blocks: list[list[Any]]
    out: tuple[GroupNorm, None, Convolution]
    image_size: int = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    model_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    num_res_blocks: int = eqx.field(static=True)
    attention_resolutions: tuple[int, ...] = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    channel_mult: tuple[float, ...] = eqx.field(static=True)
    conv_resample: bool = eqx.field(static=True)
    num_classes: int | None = eqx.field(static=True)
    num_heads: int = eqx.field(static=True)
    num_head_channels: int = eqx.field(static=True)
    num_heads_upsample: int = eqx.field(static=True)
    use_scale_shift_norm: bool = eqx.field(static=True)
    resblock_updown: bool = eqx.field(static=True)
    use_new_attention_order: bool = eqx.field(static=True)

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float = 0.0,
        channel_mult: Sequence[float] = (1, 2, 4, 8),
        conv_resample: bool = True,
        num_classes: int | None = None,
        num_heads: int = 1,
        num_head_channels: int = -1,
        num_heads_upsample: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        *,
        key: PRNGKeyArray,
    ):
        self.image_size, self.in_channels, self.out_channels = image_size, in_channels, out_channels
        self.model_channels, self.num_res_blocks = model_channels, num_res_blocks
        self.attention_resolutions, self.channel_mult = tuple(attention_resolutions), tuple(channel_mult)
        self.dropout, self.conv_resample, self.num_classes = dropout, conv_resample, num_classes
        self.num_heads, self.num_head_channels, self.num_heads_upsample = (
            num_heads,
            num_head_channels,
            num_heads_upsample,
        )
        self.use_scale_shift_norm, self.resblock_updown = use_scale_shift_norm, resblock_updown
        self.use_new_attention_order = use_new_attention_order
        self._check()
        keys, width = key_stream(key), 4 * model_channels
        self.time_embed = (Linear(model_channels, width, key=next(keys)), None, Linear(width, width, key=next(keys)))
        self.label_emb = None if num_classes is None else LabelEmbedding(num_classes, width, key=next(keys))
        options = ResBlockOptions(width, dropout, use_scale_shift_norm)
        self.input_blocks, read = self._input_blocks(options, keys)
        channels = read[-1]
        self.middle_block = (
            ResBlock(channels, channels, options, key=next(keys)),
            self._attention(channels, num_heads, next(keys)),
            ResBlock(channels, channels, options, key=next(keys)),
        )
        self.output_blocks = self._output_blocks(read, options, keys)
        channels = self._widths[0]
        self.out = (norm_of_32_groups(channels), None, Convolution(channels, out_channels, key=next(keys)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one example: (height, width, channels)."""
        return self.image_size, self.image_size, self.in_channels

    @property
    def outputs(self) -> int:
        """Number of channels of its output."""
        return self.out_channels

    @property
    def classes(self) -> int | None:
        """Number of classes of the label, None for a network without labels."""
        return self.num_classes

    def __call__(
        self,
        x: Image,
        timestep: Float[Array, ""],
        label: Int[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "height width outputs"]:
        check_input("UNetModel", x, self.shape)
        self._check_levels(x.shape)
        keys, embedded = key_stream(key), self._embedded(timestep, label).astype(x.dtype)
        ((conv_in,), *blocks), states = self.input_blocks, []
        x = conv_in(x)
        states.append(x)
        for block in blocks:
            x = _through(block, x, embedded, keys)
            states.append(x)
        x = _through(self.middle_block, x, embedded, keys)
        for block in self.output_blocks:
            x = _through(block, jnp.concatenate([x, states.pop()], axis=-1), embedded, keys)
        norm, _, conv_out = self.out
        return conv_out(activated(norm, x))

    def _embedded(self, timestep, label) -> Features:
        first, _, second = self.time_embed
        embedded = second(jax.nn.silu(first(sinusoids(timestep, self.model_channels, flip_sin_to_cos=True))))
        if self.label_emb is None:
            if label is not None:
                raise ValueError("UNetModel: label is given, but the network reads none; leave it out.")
            return embedded
        if label is None:
            last = len(self.label_emb.table) - 1
            raise ValueError(
                f"UNetModel: label = None, but the network reads one; pass a whole number from 0 to {last}."
            )
        return embedded + self.label_emb(label).astype(embedded.dtype)

    def _input_blocks(self, options, keys) -> tuple[list[list[Any]], list[int]]:
        """The blocks on the way down, and the number of channels of each one's output."""
        channels = self._widths[0]
        blocks: list[list[Any]] = [[Convolution(self.in_channels, channels, key=next(keys))]]
        read = [channels]
        for level, width in enumerate(self._widths):
            for _ in range(self.num_res_blocks):
                block: list[Any] = [ResBlock(channels, width, options, key=next(keys))]
                if 2**level in self.attention_resolutions:
                    block.append(self._attention(width, self.num_heads, next(keys)))
                blocks.append(block)
                channels = width
                read.append(channels)
            if level < len(self._widths) - 1:
                if self.resblock_updown:
                    blocks.append([ResBlock(channels, channels, options, resample=halve, key=next(keys))])
                else:
                    blocks.append([Downsample(channels, self.conv_resample, key=next(keys))])
                read.append(channels)
        return blocks, read

    def _output_blocks(self, read, options, keys) -> list[list[Any]]:
        channels, read = read[-1], list(read)
        heads = self.num_heads if self.num_heads_upsample == -1 else self.num_heads_upsample
        blocks: list[list[Any]] = []
        for level in reversed(range(len(self._widths))):
            width = self._widths[level]
            for number in range(self.num_res_blocks + 1):
                block: list[Any] = [ResBlock(channels + read.pop(), width, options, key=next(keys))]
                channels = width
                if 2**level in self.attention_resolutions:
                    block.append(self._attention(width, heads, next(keys)))
                if level and number == self.num_res_blocks:
                    if self.resblock_updown:
                        block.append(ResBlock(channels, channels, options, resample=double, key=next(keys)))
                    else:
                        block.append(Upsample(channels, self.conv_resample, key=next(keys)))
                blocks.append(block)
        return blocks

    def _attention(self, channels, heads, key):
        if self.num_head_channels != -1:
            heads, rest = divmod(channels, self.num_head_channels)
            if rest:
                raise ValueError(
                    f"UNetModel: num_head_channels = {self.num_head_channels} does not divide {channels} channels; "
                    "pass one that does."
                )
        return AttentionBlock(channels, heads, self.use_new_attention_order, key=key)

    @property
    def _widths(self):
        return tuple(int(count * self.model_channels) for count in self.channel_mult)

    def _check(self):
        names = ("image_size", "in_channels", "out_channels", "model_channels", "num_res_blocks", "num_heads")
        counts = {name: getattr(self, name) for name in names} | {"len(channel_mult)": len(self.channel_mult)}
        check_options("UNetModel", self.dropout, "float32", **counts)
        for name in ("num_head_channels", "num_heads_upsample"):
            if getattr(self, name) != -1:
                check_count("UNetModel", name, getattr(self, name))
        if self.num_classes is not None:
            check_count("UNetModel", "num_classes", self.num_classes)
        for level, width in enumerate(self._widths):
            check_at_least("UNetModel", f"channel_mult[{level}] model_channels", width)
        self._check_levels(self.shape)

    def _check_levels(self, shape):
        check_divisible("UNetModel", shape, 2 ** (len(self.channel_mult) - 1), "resize the data")


def _through(block, x, embedded, keys):
    for layer in block:
        x = layer(x, embedded, next(keys))
    return x
