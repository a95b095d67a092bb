"""The residual block of diffusers' U-nets."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.interop.timestep.residual import residual
from sgm.nn.convolution import Convolution
from sgm.nn.layers import Features, GroupNorm, Image, Linear

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
}
"""The activations by the names that `act_fn` gives them."""


class ResnetOptions(NamedTuple):
    """Options of all residual blocks of a network, by the names of config.json."""

    time_embedding_dim: int
    norm_eps: float
    act_fn: str
    resnet_time_scale_shift: str
    dropout: float


class ResnetBlock2D(eqx.Module):
    """Two convolutions beside a shortcut; their sum is divided by `output_scale_factor`.

    The embedding is added between the convolutions, or scales and shifts the second norm. With `resample`, both
    branches change their resolution before the first convolution.
    """

    norm1: GroupNorm
    conv1: Convolution
    time_emb_proj: Linear
    norm2: GroupNorm
    conv2: Convolution
    conv_shortcut: Convolution | None
    act: Callable = eqx.field(static=True)
    is_scaled: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    resample: Callable | None = eqx.field(static=True)
    output_scale_factor: float = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        options: ResnetOptions,
        groups: int,
        groups_out: int | None = None,
        *,
        output_scale_factor: float = 1.0,
        resample: Callable | None = None,
        has_shortcut: bool = False,
        key: PRNGKeyArray,
    ):
        key_1, key_2, key_embedding, key_shortcut = jr.split(key, 4)
        self.is_scaled = options.resnet_time_scale_shift == "scale_shift"
        self.norm1 = GroupNorm(inputs, groups, options.norm_eps)
        self.conv1 = Convolution(inputs, outputs, key=key_1)
        self.time_emb_proj = Linear(
            options.time_embedding_dim, 2 * outputs if self.is_scaled else outputs, key=key_embedding
        )
        self.norm2 = GroupNorm(outputs, groups_out or groups, options.norm_eps)
        self.conv2 = Convolution(outputs, outputs, key=key_2)
        has_shortcut = has_shortcut or inputs != outputs
        self.conv_shortcut = Convolution(inputs, outputs, size=1, key=key_shortcut) if has_shortcut else None
        self.act, self.dropout = ACTIVATIONS[options.act_fn.lower()], options.dropout
        self.resample, self.output_scale_factor = resample, output_scale_factor

    def __call__(
        self, x: Image, embedded: Features, key: PRNGKeyArray | None
    ) -> Float[Array, "new_height new_width outputs"]:
        total = residual(
            x,
            self.time_emb_proj(self.act(embedded)),
            (self.norm1, self.conv1),
            (self.norm2, self.conv2),
            self.conv_shortcut,
            key,
            is_scaled=self.is_scaled,
            rate=self.dropout,
            resample=self.resample,
            act=self.act,
        )
        return total / self.output_scale_factor
