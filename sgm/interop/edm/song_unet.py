"""`SongUNet` of EDM: the networks DDPM++ and NCSN++."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.interop.edm.blocks import (
    FILTERS,
    FourierEmbedding,
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

_CHOICES: dict[str, Any] = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "skip", "residual"),
    "decoder_type": ("standard", "skip"),
    "resample_filter": tuple(FILTERS),
}


class SongUNet(AbstractEDMNetwork):
    """The U-net of EDM for DDPM++ and NCSN++, with the arguments of EDM's own class.

    Checkpoints of networks that were trained with augmentation have a tensor `map_augment.weight`. It is kept, so that
    the network can be saved again, and not used: it multiplies the parameters of the augmentation, which are all 0 for
    an image that is not augmented.

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
        attn_resolutions: Heights at which blocks attend: all on the way down, the last on the way up.
        dropout: Probability with which a feature is dropped in training.
        label_dropout: Probability with which a label was left out in training; where it is not 0, there is a null of
            classifier-free guidance.
        embedding_type: "positional" (DDPM++) or "fourier" (NCSN++) for the timestep.
        channel_mult_noise: Number of features of the timestep, divided by `model_channels`.
        encoder_type: "standard" (DDPM++), or "skip" or "residual" (NCSN++), where the image joins each level.
        decoder_type: "standard", or "skip", where each level adds to the output.
        resample_filter: Filter that halves and doubles: (1, 1) (DDPM++) or (1, 3, 3, 1) (NCSN++).
        key: Key of the initial weights.

    Raises:
        TypeError: for a number of channels or blocks that is no integer.
        ValueError: for arguments that are not known, and for sizes that do not fit each other.

    Example:
        >>> network = SongUNet(16, 3, 3, model_channels=32, channel_mult=(1, 2), num_blocks=1, key=key)
        >>> model = sgm.ScoreModel(OfTimesteps(network, VPTimesteps(sde)), Noise(), shape=network.shape)

    Reference: Song et al. 2021 (arXiv:2011.13456, appendix H), as in Karras et al. 2022 (arXiv:2206.00364, table 7).
    """

    map_noise: FourierEmbedding | None
    map_label: Linear | None
    map_augment: Linear | None
    map_layer0: Linear
    map_layer1: Linear
    enc: dict[str, Any]
    dec: dict[str, Any]
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
    embedding_type: str = eqx.field(static=True)
    channel_mult_noise: int = eqx.field(static=True)
    encoder_type: str = eqx.field(static=True)
    decoder_type: str = eqx.field(static=True)
    resample_filter: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
        *,
        key: PRNGKeyArray,
    ):
        self.img_resolution, self.in_channels, self.out_channels = img_resolution, in_channels, out_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout
        self.model_channels, self.channel_mult = model_channels, tuple(channel_mult)
        self.channel_mult_emb, self.channel_mult_noise = channel_mult_emb, channel_mult_noise
        self.num_blocks, self.attn_resolutions, self.dropout = num_blocks, tuple(attn_resolutions), dropout
        self.embedding_type, self.encoder_type, self.decoder_type = embedding_type, encoder_type, decoder_type
        self.resample_filter = tuple(resample_filter)
        names = ("model_channels", "channel_mult_emb", "channel_mult_noise", "num_blocks")
        check_network(self, **{name: getattr(self, name) for name in names})
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                listed = ", ".join(map(repr, known))
                raise ValueError(f"SongUNet: {name} = {getattr(self, name)!r} is not known; pass one of {listed}.")
        keys, features, width = key_stream(key), self._features, model_channels * channel_mult_emb
        self.map_noise = FourierEmbedding(features, key=next(keys)) if embedding_type == "fourier" else None
        self.map_label = Linear(label_dim, features, key=next(keys)) if label_dim else None
        self.map_augment = Linear(augment_dim, features, bias=False, key=next(keys)) if augment_dim else None
        self.map_layer0 = Linear(features, width, key=next(keys))
        self.map_layer1 = Linear(width, width, key=next(keys))
        options = UNetBlockOptions(width, dropout, 1e-6, 0.5**0.5, FILTERS[self.resample_filter], False, True)
        widths = tuple(model_channels * count for count in self.channel_mult)
        attends = [img_resolution >> level in self.attn_resolutions for level in self._levels]
        layout = (widths, self.sizes, num_blocks, options)
        self.enc, read = build_encoder(in_channels, model_channels, *layout, lambda level, _: int(attends[level]), keys)
        self.dec = build_decoder(
            read, *layout, lambda level, number, _: int(attends[level] and number == num_blocks), 1, keys
        )
        self._add_images(widths, options.eps, keys)

    def _add_images(self, widths, eps, keys):
        """Build the layers that join the image to the way down, and those that make the output."""
        beside = self.in_channels
        for level, size in list(enumerate(self.sizes))[1:]:
            joined = widths[level - 1]
            if self.encoder_type == "skip":
                self.enc[f"{size}_aux_skip"] = Convolution(beside, joined, size=1, key=next(keys))
            elif self.encoder_type == "residual":
                self.enc[f"{size}_aux_residual"] = Convolution(beside, joined, key=next(keys))
                beside = joined
        for level, size in enumerate(self.sizes):
            if level == 0 or self.decoder_type == "skip":
                self.dec[f"{size}_aux_norm"] = GroupNorm(widths[level], few_groups(widths[level]), eps)
                self.dec[f"{size}_aux_conv"] = Convolution(widths[level], self.out_channels, key=next(keys))

    def __call__(
        self,
        x: Image,
        timestep: Float[Array, ""],
        label: Int[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "height width outputs"]:
        check_input("SongUNet", x, self.shape)
        check_levels(self, x.shape)
        keys, embedded = key_stream(key), self._embedded(timestep, label).astype(x.dtype)
        hidden, states = self._down(x, embedded, keys)
        output = None
        for size in reversed(self.sizes):
            hidden = go_up(self.dec, size, hidden, states, embedded, self.num_blocks, keys)
            output = None if output is None else FILTERS[self.resample_filter].double(output)
            if f"{size}_aux_conv" in self.dec:
                more = self.dec[f"{size}_aux_conv"](activated(self.dec[f"{size}_aux_norm"], hidden))
                output = more if output is None else output + more
        assert output is not None  # The last level has one.
        return output

    def _down(self, x, embedded, keys) -> tuple[Any, list[Any]]:
        """The features, and the outputs that the way up reads."""
        resampling, beside = FILTERS[self.resample_filter], x
        x = self.enc[f"{self.sizes[0]}_conv"](x)
        states = [x]
        for level, size in enumerate(self.sizes):
            if level:
                x = self.enc[f"{size}_down"](x, embedded, next(keys))
                if self.encoder_type == "skip":
                    beside = resampling.halve(beside)
                    x = x + self.enc[f"{size}_aux_skip"](beside)
                elif self.encoder_type == "residual":
                    pad = ((resampling.padding,) * 2,) * 2
                    around = self.enc[f"{size}_aux_residual"](jnp.pad(beside, (*pad, (0, 0))))
                    x = beside = 0.5**0.5 * (x + resampling.halve_inside(around))
                states.append(x)
            for number in range(self.num_blocks):
                x = self.enc[f"{size}_block{number}"](x, embedded, next(keys))
                states.append(x)
        return x, states

    def _embedded(self, timestep, label) -> Features:
        if self.map_noise is None:
            features = sinusoids(timestep, self._features, freq_shift=1)
        else:
            features = self.map_noise(timestep)
        vector = self._label(label)
        if self.map_label is not None and vector is not None:
            features = features + self.map_label(vector * self.label_dim**0.5)
        return jax.nn.silu(self.map_layer1(jax.nn.silu(self.map_layer0(features))))

    @property
    def _features(self):
        return self.model_channels * self.channel_mult_noise
