"""The blocks of diffusers' `UNet2DModel`: of one resolution each, on the way down, in the middle and on the way up.

Skip blocks carry a small image beside the features: on the way down the input at their resolution, which joins the
features; on the way up the output so far, which the features are added to.

Reference: Song et al. 2021 (arXiv:2011.13456, appendix H), there "input skip" and "output skip".
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.interop.diffusers.resnet import ResnetBlock2D, ResnetOptions
from sgm.interop.timestep.attention import PixelAttention
from sgm.interop.timestep.resampling import Downsample2D, Upsample2D, fir_double, fir_halve
from sgm.interop.timestep.residual import few_groups
from sgm.nn.convolution import Convolution
from sgm.nn.layers import Features, GroupNorm, Image, activated, key_stream
from sgm.nn.unet import double, halve

# Channels of the image beside the features, which diffusers fixes.
SKIP_CHANNELS = 3
# Groups of the attention's norm in skip blocks, which diffusers fixes.
_SKIP_ATTENTION_GROUPS = 32

Outputs = Float[Array, "new_height new_width outputs"]
Skip = Float[Array, "skip_height skip_width skip_channels"]
NewSkip = Float[Array, "new_skip_height new_skip_width skip_channels"]


class UNet2DOptions(NamedTuple):
    """Options of all blocks of a network, by the names of config.json."""

    resnet: ResnetOptions
    norm_num_groups: int | None
    attention_head_dim: int | None

    def attention(
        self, channels: int, groups: int | None, output_scale_factor: float, key: PRNGKeyArray
    ) -> PixelAttention:
        head_dim = self.attention_head_dim or channels
        return PixelAttention(channels, head_dim, groups, self.resnet.norm_eps, output_scale_factor, key=key)


class DownBlock(eqx.Module):
    """Residual blocks, each followed by attention if the block `attends`, and then a downsampler.

    Arguments:
        inputs: Number of channels of its input.
        outputs: Number of channels of its outputs.
        layers: Number of residual blocks.
        options: Options of all blocks.
        attends: Whether it attends.
        downsampler: "conv", "resnet", or None to keep the resolution.
        padding: Padding of the convolution that halves.
    """

    resnets: list[ResnetBlock2D]
    attentions: list[PixelAttention] | None
    downsamplers: list[Downsample2D | ResnetBlock2D] | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int,
        options: UNet2DOptions,
        *,
        attends: bool,
        downsampler: str | None,
        padding: int,
        key: PRNGKeyArray,
    ):
        keys, groups = key_stream(key), _groups(options)
        self.resnets = [
            ResnetBlock2D(outputs if layer else inputs, outputs, options.resnet, groups, key=next(keys))
            for layer in range(layers)
        ]
        self.attentions = (
            [options.attention(outputs, groups, 1.0, next(keys)) for _ in self.resnets] if attends else None
        )
        if downsampler == "resnet":
            last = ResnetBlock2D(outputs, outputs, options.resnet, groups, resample=halve, key=next(keys))
        else:
            last = Downsample2D(outputs, padding, key=next(keys))
        self.downsamplers = None if downsampler is None else [last]

    def __call__(
        self, x: Image, embedded: Features, skip: Skip, keys: Iterator[Any]
    ) -> tuple[Outputs, list[Any], Skip]:
        """The features, all that the way up reads of them, and the image beside them."""
        outputs = []
        for layer, resnet in enumerate(self.resnets):
            x = resnet(x, embedded, next(keys))
            x = x if self.attentions is None else self.attentions[layer](x)
            outputs.append(x)
        for downsampler in self.downsamplers or ():
            x = downsampler(x, embedded, next(keys))
            outputs.append(x)
        return x, outputs, skip


class SkipDownBlock(eqx.Module):
    """Residual blocks, each followed by attention if it `attends`; then half the resolution, joined by the image.

    Arguments:
        inputs: Number of channels of its input.
        outputs: Number of channels of its outputs.
        layers: Number of residual blocks.
        options: Options of all blocks.
        attends: Whether it attends.
        halves: Whether it halves the resolution.
    """

    resnets: list[ResnetBlock2D]
    attentions: list[PixelAttention] | None
    resnet_down: ResnetBlock2D | None
    skip_conv: Convolution | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: int,
        options: UNet2DOptions,
        *,
        attends: bool,
        halves: bool,
        key: PRNGKeyArray,
    ):
        keys = key_stream(key)
        self.resnets = [
            _skip_resnet(outputs if layer else inputs, outputs, options, None, next(keys)) for layer in range(layers)
        ]
        self.attentions = [_skip_attention(outputs, options, next(keys)) for _ in self.resnets] if attends else None
        self.resnet_down = _skip_resnet(outputs, outputs, options, fir_halve, next(keys)) if halves else None
        self.skip_conv = Convolution(SKIP_CHANNELS, outputs, size=1, key=next(keys)) if halves else None

    def __call__(
        self, x: Image, embedded: Features, skip: Skip, keys: Iterator[Any]
    ) -> tuple[Outputs, list[Any], NewSkip]:
        """The features, all that the way up reads of them, and the image beside them."""
        outputs = []
        for layer, resnet in enumerate(self.resnets):
            x = resnet(x, embedded, next(keys))
            x = x if self.attentions is None else self.attentions[layer](x)
            outputs.append(x)
        if self.resnet_down is not None and self.skip_conv is not None:
            skip = fir_halve(skip)
            x = self.skip_conv(skip) + self.resnet_down(x, embedded, next(keys))
            outputs.append(x)
        return x, outputs, skip


class MidBlock(eqx.Module):
    """Two residual blocks, with attention between them if it `attends`.

    Arguments:
        channels: Number of channels.
        options: Options of all blocks.
        attends: Whether it attends.
        attention_groups: Groups of the attention's norm. By default those of the residual blocks, or no norm where the
            embedding scales and shifts.
        output_scale_factor: What each sum of two branches is divided by.
    """

    resnets: list[ResnetBlock2D]
    attentions: list[PixelAttention | None]

    def __init__(
        self,
        channels: int,
        options: UNet2DOptions,
        *,
        attends: bool,
        attention_groups: int | None,
        output_scale_factor: float,
        key: PRNGKeyArray,
    ):
        key_first, key_attention, key_second = jax.random.split(key, 3)
        groups = options.norm_num_groups or few_groups(channels)
        if attention_groups is None and options.resnet.resnet_time_scale_shift == "default":
            attention_groups = groups
        attention = options.attention(channels, attention_groups, output_scale_factor, key_attention)
        self.attentions = [attention if attends else None]
        self.resnets = [
            ResnetBlock2D(
                channels, channels, options.resnet, groups, output_scale_factor=output_scale_factor, key=key_resnet
            )
            for key_resnet in (key_first, key_second)
        ]

    def __call__(self, x: Image, embedded: Features, keys: Iterator[Any]) -> Image:
        first, second = self.resnets
        (attention,) = self.attentions
        x = first(x, embedded, next(keys))
        return second(x if attention is None else attention(x), embedded, next(keys))


class UpBlock(eqx.Module):
    """Residual blocks that each read a counterpart, followed by attention if the block `attends`, and an upsampler.

    Arguments:
        inputs: Numbers of channels of the input of each residual block, and of the counterpart that it reads.
        outputs: Number of channels of its output.
        options: Options of all blocks.
        attends: Whether it attends.
        upsampler: "conv", "resnet", or None to keep the resolution.
    """

    resnets: list[ResnetBlock2D]
    attentions: list[PixelAttention] | None
    upsamplers: list[Upsample2D | ResnetBlock2D] | None

    def __init__(
        self,
        inputs: list[tuple[int, int]],
        outputs: int,
        options: UNet2DOptions,
        *,
        attends: bool,
        upsampler: str | None,
        key: PRNGKeyArray,
    ):
        keys, groups = key_stream(key), _groups(options)
        self.resnets = [ResnetBlock2D(sum(pair), outputs, options.resnet, groups, key=next(keys)) for pair in inputs]
        self.attentions = [options.attention(outputs, groups, 1.0, next(keys)) for _ in inputs] if attends else None
        if upsampler == "resnet":
            last = ResnetBlock2D(outputs, outputs, options.resnet, groups, resample=double, key=next(keys))
        else:
            last = Upsample2D(outputs, key=next(keys))
        self.upsamplers = None if upsampler is None else [last]

    def __call__(
        self, x: Image, counterparts: list[Any], embedded: Features, skip: Skip | None, keys: Iterator[Any]
    ) -> tuple[Outputs, Skip | None]:
        """The features and the image beside them; the `counterparts` that are read are taken from the list's end."""
        for layer, resnet in enumerate(self.resnets):
            x = resnet(jnp.concatenate([x, counterparts.pop()], axis=-1), embedded, next(keys))
            x = x if self.attentions is None else self.attentions[layer](x)
        for upsampler in self.upsamplers or ():
            x = upsampler(x, embedded, next(keys))
        return x, skip


class SkipUpBlock(eqx.Module):
    """Residual blocks that each read a counterpart, attention if the block `attends`; then the image is added to.

    Arguments:
        inputs: Numbers of channels of the input of each residual block, and of the counterpart that it reads.
        outputs: Number of channels of its output.
        options: Options of all blocks.
        attends: Whether it attends.
        doubles: Whether it doubles the resolution.
    """

    resnets: list[ResnetBlock2D]
    attentions: list[PixelAttention] | None
    resnet_up: ResnetBlock2D | None
    skip_norm: GroupNorm | None
    skip_conv: Convolution | None

    def __init__(
        self,
        inputs: list[tuple[int, int]],
        outputs: int,
        options: UNet2DOptions,
        *,
        attends: bool,
        doubles: bool,
        key: PRNGKeyArray,
    ):
        keys = key_stream(key)
        self.resnets = [
            # With attention, diffusers divides the counterpart's channels alone by 4.
            _skip_resnet(own + read, outputs, options, None, next(keys), min(own + read // 4, 32) if attends else None)
            for own, read in inputs
        ]
        self.attentions = [_skip_attention(outputs, options, next(keys))] if attends else None
        self.resnet_up = _skip_resnet(outputs, outputs, options, fir_double, next(keys)) if doubles else None
        self.skip_norm = GroupNorm(outputs, few_groups(outputs), options.resnet.norm_eps) if doubles else None
        self.skip_conv = Convolution(outputs, SKIP_CHANNELS, key=next(keys)) if doubles else None

    def __call__(
        self, x: Image, counterparts: list[Any], embedded: Features, skip: Skip | None, keys: Iterator[Any]
    ) -> tuple[Outputs, NewSkip | None]:
        """The features and the image beside them; the `counterparts` that are read are taken from the list's end."""
        for resnet in self.resnets:
            x = resnet(jnp.concatenate([x, counterparts.pop()], axis=-1), embedded, next(keys))
        for attention in self.attentions or ():
            x = attention(x)
        skip = None if skip is None else fir_double(skip)
        if self.resnet_up is not None and self.skip_norm is not None and self.skip_conv is not None:
            more = self.skip_conv(activated(self.skip_norm, x))
            skip = more if skip is None else skip + more
            x = self.resnet_up(x, embedded, next(keys))
        return x, skip


def _groups(options):
    if options.norm_num_groups is None:
        raise ValueError(
            "UNet2DModel: norm_num_groups = None, but only skip blocks choose their groups themselves; pass a number, "
            "such as 32."
        )
    return options.norm_num_groups


def _skip_resnet(inputs, outputs, options, resample, key, groups=None):
    return ResnetBlock2D(
        inputs,
        outputs,
        options.resnet,
        groups or few_groups(inputs),
        few_groups(outputs),
        output_scale_factor=math.sqrt(2),
        resample=resample,
        has_shortcut=resample is not None,
        key=key,
    )


def _skip_attention(channels, options, key):
    return options.attention(channels, _SKIP_ATTENTION_GROUPS, math.sqrt(2), key)
