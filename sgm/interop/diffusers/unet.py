"""`UNet2DModel` of diffusers."""

from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.interop.diffusers.resnet import ResnetOptions
from sgm.interop.diffusers.unet_blocks import (
    DownBlock,
    MidBlock,
    SkipDownBlock,
    SkipUpBlock,
    UNet2DOptions,
    UpBlock,
)
from sgm.interop.diffusers.unet_config import DOWN, UP, check_config, check_sizes, kind_of, sizes_of
from sgm.interop.timestep.embeddings import (
    GaussianFourierProjection,
    LabelEmbedding,
    TimestepEmbedding,
    TimestepTable,
    sinusoids,
)
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.residual import few_groups
from sgm.nn.convolution import Convolution
from sgm.nn.layers import Features, GroupNorm, Image, activated, check_input, key_stream


class UNet2DModel(AbstractTimestepNetwork):
    """The U-net of diffusers for images, by the fields of its config.json.

    Arguments:
        sample_size: Height and width of an image, or a number that is both.
        in_channels: Number of channels of its input.
        out_channels: Number of channels of its output.
        center_input_sample: Whether its input x becomes 2 x - 1.
        time_embedding_type: "positional"; "fourier", where the output is divided by the timestep; or "learned", where
            timesteps between whole ones are interpolated.
        time_embedding_dim: Width of the embedding; None for four times the first number of channels.
        freq_shift: Number in the exponents of the frequencies of positional embeddings; see `sinusoids`.
        flip_sin_to_cos: Whether cosines come first in positional embeddings.
        down_block_types: Types of the blocks on the way down: DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D,
            SkipDownBlock2D or AttnSkipDownBlock2D. All but the last halve the resolution.
        mid_block_type: "UNetMidBlock2D", or None for no block in the middle.
        up_block_types: Types of the blocks on the way up, the counterparts of those.
        block_out_channels: Numbers of channels of the blocks on the way down.
        layers_per_block: Number of residual blocks of each on the way down; on the way up there is one more.
        mid_block_scale_factor: What each sum in the middle block is divided by.
        downsample_padding: 1, or 0 for zeros below and to the right alone.
        downsample_type: How AttnDownBlock2D halves the resolution: "conv" or "resnet".
        upsample_type: How AttnUpBlock2D doubles the resolution: "conv" or "resnet".
        dropout: Probability with which a feature is dropped in training.
        act_fn: Activation: "silu" or "swish", "mish", "gelu" or "relu".
        attention_head_dim: Number of features of a head; None for one head.
        norm_num_groups: Number of groups of the norms; None where all blocks are skip blocks.
        attn_norm_num_groups: Number of groups of the norm of the middle block's attention; see `MidBlock`.
        norm_eps: What is added to a norm's variance.
        resnet_time_scale_shift: "default" where the embedding is added, or "scale_shift".
        add_attention: Whether the block in the middle attends.
        class_embed_type: What a label is: None for a row of a table, where there are `num_class_embeds`; "timestep" for
            a number that is embedded as the timestep is; "identity" for an embedding itself.
        num_class_embeds: Number of labels; None for a network without labels, or for "identity".
        num_train_timesteps: Number of timesteps of a learned embedding.
        key: Key of the initial weights.

    Raises:
        TypeError: for a number of channels or layers that is no integer.
        ValueError: for fields that diffusers does not know, and for sizes that do not fit each other.

    Example:
        >>> down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
        >>> options = {"block_out_channels": (32, 64), "layers_per_block": 1}
        >>> network = UNet2DModel(8, down_block_types=down, up_block_types=up, **options, key=key)
        >>> network.shape, network.outputs  # of network(x, timestep)
        ((8, 8, 3), 3)

    Reference: Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021 (arXiv:2011.13456, appendix H).
    """

    conv_in: Convolution
    time_proj: GaussianFourierProjection | TimestepTable | None
    time_embedding: TimestepEmbedding
    class_embedding: LabelEmbedding | TimestepEmbedding | None
    down_blocks: list[DownBlock | SkipDownBlock]
    mid_block: MidBlock | None
    up_blocks: list[UpBlock | SkipUpBlock]
    conv_norm_out: GroupNorm
    conv_out: Convolution
    sample_size: int | tuple[int, ...] | None = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    center_input_sample: bool = eqx.field(static=True)
    time_embedding_type: str = eqx.field(static=True)
    time_embedding_dim: int | None = eqx.field(static=True)
    freq_shift: float = eqx.field(static=True)
    flip_sin_to_cos: bool = eqx.field(static=True)
    down_block_types: tuple[str, ...] = eqx.field(static=True)
    mid_block_type: str | None = eqx.field(static=True)
    up_block_types: tuple[str, ...] = eqx.field(static=True)
    block_out_channels: tuple[int, ...] = eqx.field(static=True)
    layers_per_block: int = eqx.field(static=True)
    mid_block_scale_factor: float = eqx.field(static=True)
    downsample_padding: int = eqx.field(static=True)
    downsample_type: str | None = eqx.field(static=True)
    upsample_type: str | None = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    act_fn: str = eqx.field(static=True)
    attention_head_dim: int | None = eqx.field(static=True)
    norm_num_groups: int | None = eqx.field(static=True)
    attn_norm_num_groups: int | None = eqx.field(static=True)
    norm_eps: float = eqx.field(static=True)
    resnet_time_scale_shift: str = eqx.field(static=True)
    add_attention: bool = eqx.field(static=True)
    class_embed_type: str | None = eqx.field(static=True)
    num_class_embeds: int | None = eqx.field(static=True)
    num_train_timesteps: int | None = eqx.field(static=True)

    def __init__(
        self,
        sample_size: int | Sequence[int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        center_input_sample: bool = False,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,
        freq_shift: float = 0,
        flip_sin_to_cos: bool = True,
        down_block_types: Sequence[str] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",
        up_block_types: Sequence[str] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels: Sequence[int] = (224, 448, 672, 896),
        layers_per_block: int = 2,
        mid_block_scale_factor: float = 1,
        downsample_padding: int = 1,
        downsample_type: str | None = "conv",
        upsample_type: str | None = "conv",
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,
        norm_num_groups: int | None = 32,
        attn_norm_num_groups: int | None = None,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "default",
        add_attention: bool = True,
        class_embed_type: str | None = None,
        num_class_embeds: int | None = None,
        num_train_timesteps: int | None = None,
        *,
        key: PRNGKeyArray,
    ):
        self.sample_size = sample_size if sample_size is None or isinstance(sample_size, int) else tuple(sample_size)
        self.in_channels, self.out_channels, self.center_input_sample = in_channels, out_channels, center_input_sample
        self.time_embedding_type, self.time_embedding_dim = time_embedding_type, time_embedding_dim
        self.freq_shift, self.flip_sin_to_cos = freq_shift, flip_sin_to_cos
        self.down_block_types, self.up_block_types = tuple(down_block_types), tuple(up_block_types)
        self.mid_block_type, self.block_out_channels = mid_block_type, tuple(block_out_channels)
        self.layers_per_block, self.mid_block_scale_factor = layers_per_block, mid_block_scale_factor
        self.downsample_padding, self.downsample_type = downsample_padding, downsample_type
        self.upsample_type, self.dropout, self.act_fn = upsample_type, dropout, act_fn
        self.attention_head_dim, self.norm_num_groups = attention_head_dim, norm_num_groups
        self.attn_norm_num_groups, self.norm_eps = attn_norm_num_groups, norm_eps
        self.resnet_time_scale_shift, self.add_attention = resnet_time_scale_shift, add_attention
        self.class_embed_type, self.num_class_embeds = class_embed_type, num_class_embeds
        self.num_train_timesteps = num_train_timesteps
        check_config(self)
        keys, channels = key_stream(key), self.block_out_channels
        width = time_embedding_dim or 4 * channels[0]
        resnet = ResnetOptions(width, norm_eps, act_fn, resnet_time_scale_shift, dropout)
        options = UNet2DOptions(resnet, norm_num_groups, attention_head_dim)
        self.conv_in = Convolution(in_channels, channels[0], key=next(keys))
        self.time_proj, features = None, channels[0]
        if time_embedding_type == "fourier":
            self.time_proj, features = GaussianFourierProjection(channels[0], key=next(keys)), 2 * channels[0]
        elif time_embedding_type == "learned" and num_train_timesteps is not None:
            self.time_proj = TimestepTable(num_train_timesteps, channels[0], key=next(keys))
        self.time_embedding = TimestepEmbedding(features, width, key=next(keys))
        self.class_embedding = None
        if class_embed_type == "timestep":
            self.class_embedding = TimestepEmbedding(features, width, key=next(keys))
        elif class_embed_type is None and num_class_embeds is not None:
            self.class_embedding = LabelEmbedding(num_class_embeds, width, key=next(keys))
        self.down_blocks = [self._down_block(level, options, next(keys)) for level in range(len(channels))]
        self.mid_block = None
        if mid_block_type is not None:
            self.mid_block = MidBlock(
                channels[-1],
                options,
                attends=add_attention,
                attention_groups=attn_norm_num_groups,
                output_scale_factor=mid_block_scale_factor,
                key=next(keys),
            )
        self.up_blocks = [self._up_block(place, options, next(keys)) for place in range(len(channels))]
        self.conv_norm_out = GroupNorm(channels[0], norm_num_groups or few_groups(channels[0]), norm_eps)
        self.conv_out = Convolution(channels[0], out_channels, key=next(keys))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one example: (height, width, channels)."""
        return *sizes_of(self.sample_size), self.in_channels

    @property
    def outputs(self) -> int:
        """Number of channels of its output."""
        return self.out_channels

    @property
    def classes(self) -> int | None:
        """Number of classes of the label, None for a network that reads no label or an embedding."""
        return None if self.class_embed_type == "identity" else self.num_class_embeds

    def __call__(
        self,
        x: Image,
        timestep: Float[Array, ""],
        label: Int[Array, ""] | Float[Array, " embedding"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "height width outputs"]:
        """Compute the output.

        Arguments:
            x: Noisy example, of shape (height, width, in_channels).
            timestep: Timestep of the noise level, which need not be whole.
            label: Label of the example where there are labels, or its embedding where class_embed_type is "identity".
            key: Key of the dropout, which is switched off without one.

        Returns:
            The output, of shape (height, width, out_channels), in the precision of x.
        """
        check_input("UNet2DModel", x, self.shape)
        check_sizes(x.shape, self.block_out_channels)
        keys = key_stream(key)
        embedded = self._embedded(timestep, label).astype(x.dtype)
        skip = 2 * x - 1 if self.center_input_sample else x
        hidden = self.conv_in(skip)
        states = [hidden]
        for block in self.down_blocks:
            hidden, outputs, skip = block(hidden, embedded, skip, keys)
            states.extend(outputs)
        if self.mid_block is not None:
            hidden = self.mid_block(hidden, embedded, keys)
        skip = None
        for block in self.up_blocks:
            hidden, skip = block(hidden, states, embedded, skip, keys)
        output = self.conv_out(activated(self.conv_norm_out, hidden))
        output = output if skip is None else output + skip
        return output / timestep.astype(x.dtype) if self.time_embedding_type == "fourier" else output

    def _embedded(self, timestep, label) -> Features:
        embedded = self.time_embedding(self._waves(timestep))
        if self.class_embed_type is None and self.class_embedding is None:
            if label is not None:
                raise ValueError("UNet2DModel: label is given, but the network reads none; leave it out.")
            return embedded
        if label is None:
            what = "its embedding" if self.classes is None else f"a whole number from 0 to {self.classes - 1}"
            raise ValueError(f"UNet2DModel: label = None, but the network reads one; pass {what}.")
        if self.class_embed_type == "timestep":
            label = self._waves(label.astype(timestep.dtype))
        features = label if self.class_embedding is None else self.class_embedding(label)
        return embedded + features.astype(embedded.dtype)

    def _waves(self, timestep) -> Features:
        if self.time_proj is not None:
            return self.time_proj(timestep)
        width = self.block_out_channels[0]
        return sinusoids(timestep, width, flip_sin_to_cos=self.flip_sin_to_cos, freq_shift=self.freq_shift)

    def _down_block(self, level, options, key):
        channels, halves = self.block_out_channels, level < len(self.block_out_channels) - 1
        attends, how = kind_of(DOWN, self.down_block_types[level])
        sizes = channels[max(level - 1, 0)], channels[level], self.layers_per_block, options
        if how == "skip":
            return SkipDownBlock(*sizes, attends=attends, halves=halves, key=key)
        downsampler = (how or self.downsample_type or "conv") if halves else None
        return DownBlock(*sizes, attends=attends, downsampler=downsampler, padding=self.downsample_padding, key=key)

    def _up_block(self, place, options, key):
        channels, doubles = self.block_out_channels[::-1], place < len(self.block_out_channels) - 1
        attends, how = kind_of(UP, self.up_block_types[place])
        outputs = channels[place]
        own = [channels[max(place - 1, 0)]] + [outputs] * self.layers_per_block
        read = [outputs] * self.layers_per_block + [channels[min(place + 1, len(channels) - 1)]]
        inputs = list(zip(own, read, strict=True))
        if how == "skip":
            return SkipUpBlock(inputs, outputs, options, attends=attends, doubles=doubles, key=key)
        upsampler = (how or self.upsample_type or "conv") if doubles else None
        return UpBlock(inputs, outputs, options, attends=attends, upsampler=upsampler, key=key)
