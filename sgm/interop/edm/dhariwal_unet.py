"""`DhariwalUNet` of EDM: the network of ADM."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.interop.edm.blocks import (
    FILTERS,
    UNetBlockOptions,
    build_decoder,
    build_encoder,
    go_up,
)
from sgm.interop.edm.network import AbstractEDMNetwork, check_levels, check_network
from sgm.interop.timestep.embeddings import sinusoids
from sgm.interop.timestep.residual import few_groups
from sgm.nn.convolution import Convolution
from sgm.nn.layers import Features, GroupNorm, Image, Linear, activated, check_input, key_stream

_HEAD_CHANNELS = 64


class DhariwalUNet(AbstractEDMNetwork):
    """The U-net of EDM for ADM, with the arguments of EDM's own class.

    Heads have 64 channels; blocks of fewer do not attend. `map_augment` is kept and not used, as in `SongUNet`.

    Arguments:
        img_resolution: Height and width of an image.
        in_channels: Number of channels of its input.
        out_channels: Number of channels of its output.
        label_dim: Number of labels, 0 for none.
        augment_dim: Number of parameters of the augmentation that it was trained with, 0 for none.
        model_channels: Base number of channels.
        channel_mult: Number of channels at each level, divided by `model_channels`.
        channel_mult_emb: Width of the embedding, divided by `model_channels`.
        num_blocks: Number of blocks at each level on the way down; on the way up there is one more.
        attn_resolutions: Heights at which blocks attend.
        dropout: Probability with which a feature is dropped in training.
        label_dropout: Probability with which a label was left out in training; where it is not 0, there is a null of
            classifier-free guidance.
        key: Key of the initial weights.

    Raises:
        TypeError: for a number of channels or blocks that is no integer.
        ValueError: for sizes that do not fit each other.

    Example:
        >>> network = DhariwalUNet(16, 3, 3, 10, model_channels=32, channel_mult=(1, 2), num_blocks=1, key=key)
        >>> model = sgm.ScoreModel(OfTimesteps(network, EDMTimesteps()), Karras(), shape=network.shape)

    Reference: Dhariwal and Nichol 2021 (arXiv:2105.05233), as in Karras et al. 2022 (arXiv:2206.00364, table 7).
    """

    map_augment: Linear | None
    map_layer0: Linear
    map_layer1: Linear
    map_label: Linear | None
    enc: dict[str, Any]
    dec: dict[str, Any]
    out_norm: GroupNorm
    out_conv: Convolution
    img_resolution: int = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    label_dim: int = eqx.field(static=True)
    augment_dim: int = eqx.field(static=True)
    model_channels: int = eqx.field(static=True)
    channel_mult: tuple[int, ...] = eqx.field(static=True)
    channel_mult_emb: int = eqx.field(static=True)
    num_blocks: int = eqx.field(static=True)
    attn_resolutions: tuple[int, ...] = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    label_dropout: float = eqx.field(static=True)

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.1,
        label_dropout: float = 0.0,
        *,
        key: PRNGKeyArray,
    ):
        self.img_resolution, self.in_channels, self.out_channels = img_resolution, in_channels, out_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        self.model_channels, self.channel_mult = model_channels, tuple(channel_mult)
        self.channel_mult_emb, self.num_blocks = channel_mult_emb, num_blocks
        self.attn_resolutions, self.dropout = tuple(attn_resolutions), dropout
        check_network(self, model_channels=model_channels, channel_mult_emb=channel_mult_emb, num_blocks=num_blocks)
        keys, width = key_stream(key), model_channels * channel_mult_emb
        self.map_augment = Linear(augment_dim, model_channels, bias=False, key=next(keys)) if augment_dim else None
        self.map_layer0 = Linear(model_channels, width, key=next(keys))
        self.map_layer1 = Linear(width, width, key=next(keys))
        self.map_label = Linear(label_dim, width, bias=False, key=next(keys)) if label_dim else None
        options = UNetBlockOptions(width, dropout, 1e-5, 1.0, FILTERS[1, 1], True, False)
        widths = tuple(model_channels * count for count in self.channel_mult)

        def heads(level, channels):
            attends = img_resolution >> level in self.attn_resolutions
            return channels // _HEAD_CHANNELS if attends else 0

        layout = (widths, self.sizes, num_blocks, options)
        self.enc, read = build_encoder(in_channels, widths[0], *layout, heads, keys)
        middle_heads = widths[-1] // _HEAD_CHANNELS
        self.dec = build_decoder(read, *layout, lambda level, _, channels: heads(level, channels), middle_heads, keys)
        self.out_norm = GroupNorm(widths[0], few_groups(widths[0]), options.eps)
        self.out_conv = Convolution(widths[0], out_channels, key=next(keys))

    def __call__(
        self,
        x: Image,
        timestep: Float[Array, ""],
        label: Int[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "height width outputs"]:
        check_input("DhariwalUNet", x, self.shape)
        check_levels(self, x.shape)
        keys, embedded = key_stream(key), self._embedded(timestep, label).astype(x.dtype)
        hidden = self.enc[f"{self.sizes[0]}_conv"](x)
        states: list[Any] = [hidden]
        for level, size in enumerate(self.sizes):
            if level:
                hidden = self.enc[f"{size}_down"](hidden, embedded, next(keys))
                states.append(hidden)
            for number in range(self.num_blocks):
                hidden = self.enc[f"{size}_block{number}"](hidden, embedded, next(keys))
                states.append(hidden)
        for size in reversed(self.sizes):
            hidden = go_up(self.dec, size, hidden, states, embedded, self.num_blocks, keys)
        return self.out_conv(activated(self.out_norm, hidden))

    def _embedded(self, timestep, label) -> Features:
        features = sinusoids(timestep, self.model_channels, flip_sin_to_cos=True)
        features = self.map_layer1(jax.nn.silu(self.map_layer0(features)))
        vector = self._label(label)
        if self.map_label is not None and vector is not None:
            features = features + self.map_label(vector.astype(features.dtype))
        return jax.nn.silu(features)
