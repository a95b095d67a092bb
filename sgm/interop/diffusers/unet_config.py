"""What the config.json of a `UNet2DModel` may say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sgm.checks import check_count
from sgm.interop.diffusers.resnet import ACTIVATIONS
from sgm.interop.diffusers.unet_blocks import SKIP_CHANNELS
from sgm.nn.layers import check_divisible, check_options


class Kind(NamedTuple):
    """Whether a type of block attends, and how it changes the resolution: None is as the configuration says."""

    attends: bool
    resamples: str | None


DOWN = {
    "DownBlock2D": Kind(False, "conv"),
    "AttnDownBlock2D": Kind(True, None),
    "ResnetDownsampleBlock2D": Kind(False, "resnet"),
    "SkipDownBlock2D": Kind(False, "skip"),
    "AttnSkipDownBlock2D": Kind(True, "skip"),
}
"""The types of blocks on the way down."""

UP = {
    "UpBlock2D": Kind(False, "conv"),
    "AttnUpBlock2D": Kind(True, None),
    "ResnetUpsampleBlock2D": Kind(False, "resnet"),
    "SkipUpBlock2D": Kind(False, "skip"),
    "AttnSkipUpBlock2D": Kind(True, "skip"),
}
"""The types of blocks on the way up."""

_CALL = "UNet2DModel"
_CHOICES: Mapping[str, Sequence[Any]] = {
    "time_embedding_type": ("positional", "fourier", "learned"),
    "mid_block_type": ("UNetMidBlock2D", None),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet", None),
    "upsample_type": ("conv", "resnet", None),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None, "timestep", "identity"),
}


def kind_of(kinds: Mapping[str, Kind], name: str) -> Kind:
    """The kind of a block, which may have a name of old."""
    return kinds[_of_today(name)]


def sizes_of(sample_size: int | tuple[int, ...] | None) -> tuple[int, int]:
    """The height and width of an image. Raise where they are not stated."""
    sizes = (sample_size,) * 2 if isinstance(sample_size, int) else sample_size or ()
    if len(sizes) != 2 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise ValueError(
            f"{_CALL}: sample_size = {sample_size!r}; pass the height and width of an image, such as 32 or (32, 48)."
        )
    return sizes[0], sizes[1]


def check_sizes(shape: tuple[int, ...], block_out_channels: tuple[int, ...]) -> None:
    """Raise unless the blocks can halve the height and width."""
    remedy = "resize the data, or build a network of fewer blocks"
    check_divisible(_CALL, shape, 2 ** (len(block_out_channels) - 1), remedy)


def check_config(network: Any) -> None:
    """Raise unless the fields of a network are known and fit each other."""
    counts = ("in_channels", "out_channels", "layers_per_block")
    check_options(_CALL, network.dropout, "float32", **{name: getattr(network, name) for name in counts})
    optional = ("attention_head_dim", "norm_num_groups", "attn_norm_num_groups", "num_class_embeds")
    for name in (*optional, "num_train_timesteps"):
        if getattr(network, name) is not None:
            check_count(_CALL, name, getattr(network, name))
    if not 0 <= network.norm_eps < math.inf:
        raise ValueError(f"{_CALL}: norm_eps = {network.norm_eps}; pass a number of 0 or more.")
    if not 0 < network.mid_block_scale_factor < math.inf:
        raise ValueError(f"{_CALL}: mid_block_scale_factor = {network.mid_block_scale_factor}; pass one above 0.")
    channels = network.block_out_channels
    check_count(_CALL, "len(block_out_channels)", len(channels))
    for level, count in enumerate(channels):
        check_count(_CALL, f"block_out_channels[{level}]", count)
    for name, kinds in (("down_block_types", DOWN), ("up_block_types", UP)):
        names = getattr(network, name)
        if len(names) != len(channels):
            raise ValueError(
                f"{_CALL}: {name} has {len(names)} entries, but block_out_channels has {len(channels)}; pass as many."
            )
        for level, kind in enumerate(names):
            _check_known(f"{name}[{level}]", _of_today(kind), kinds)
    for name, known in _CHOICES.items():
        _check_known(name, getattr(network, name), known)
    _check_known("act_fn", network.act_fn.lower(), ACTIVATIONS)
    if network.time_embedding_type == "learned" and network.num_train_timesteps is None:
        raise ValueError(
            f'{_CALL}: time_embedding_type = "learned", but num_train_timesteps = None; pass the number of timesteps.'
        )
    if network.class_embed_type == "timestep" and network.num_class_embeds is None:
        raise ValueError(
            f'{_CALL}: class_embed_type = "timestep", but num_class_embeds = None; pass the number of labels, which '
            "changes no weights."
        )
    _check_skips(network)
    check_sizes((*sizes_of(network.sample_size), network.in_channels), channels)


def _check_skips(network):
    """Raise unless the image beside the features has their resolution, and the channels that diffusers fixes."""
    down = [kind_of(DOWN, name).resamples == "skip" for name in network.down_block_types[:-1]]
    up = [kind_of(UP, name).resamples == "skip" for name in network.up_block_types]
    if down != sorted(down, reverse=True):
        raise ValueError(
            f"{_CALL}: down_block_types = {network.down_block_types}, but other blocks do not halve the input beside a "
            "skip block; pass skip blocks first."
        )
    if any(up[:-1]) and up != sorted(up):
        raise ValueError(
            f"{_CALL}: up_block_types = {network.up_block_types}, but other blocks do not double the output beside "
            "a skip block; pass skip blocks last."
        )
    for name, skips in (("in_channels", down), ("out_channels", up[:-1])):
        count = getattr(network, name)
        if any(skips) and count != SKIP_CHANNELS:
            raise ValueError(
                f"{_CALL}: {name} = {count}, but skip blocks are for images of {SKIP_CHANNELS} channels; pass "
                f"{SKIP_CHANNELS}, or blocks of other types."
            )


def _of_today(name):
    return name.removeprefix("UNetRes")


def _check_known(name, value, known):
    if value not in known:
        listed = ", ".join(repr(choice) for choice in known)
        raise ValueError(f"{_CALL}: {name} = {value!r}, which is not known; pass one of {listed}.")
