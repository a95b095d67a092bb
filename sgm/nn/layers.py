"""Layers that networks share. Each acts on one example; images are channels-last, (height, width, channels)."""

import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

Layer = TypeVar("Layer", bound=eqx.Module)
Features = Float[Array, " features"]
Image = Float[Array, "height width channels"]


class Convolution(eqx.Module):
    """A 3x3 or 1x1 convolution with zero padding, on images of `inputs` channels.

    Channels-last in memory and in the kernel: inside a loop on the CPU the other layout is many times slower
    (https://github.com/jax-ml/jax/issues/12868).
    """

    kernel: Float[Array, "size size inputs outputs"]
    bias: Float[Array, " outputs"]
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, *, key: PRNGKeyArray):
        self.kernel = jr.normal(key, (size, size, inputs, outputs)) / (size**2 * inputs) ** 0.5
        self.bias = jnp.zeros(outputs)
        self.stride = stride

    def __call__(self, x: Image) -> Float[Array, "rows columns outputs"]:
        pad = self.kernel.shape[0] // 2
        y = jax.lax.conv_general_dilated(
            x[None],
            self.kernel,
            window_strides=(self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y[0] + self.bias


class GroupNorm(eqx.Module):
    """Normalise each group of channels over space, then scale and shift each channel.

    The groups have four channels or more, and are at most 32. Source: Wu and He 2018 (arXiv:1803.08494).
    """

    scale: Features
    shift: Features
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int):
        most = max(1, min(32, channels // 4))
        self.groups = next(count for count in range(most, 0, -1) if channels % count == 0)
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)

    def __call__(self, x: Image) -> Image:
        grouped = x.reshape(*x.shape[:2], self.groups, -1)
        mean = jnp.mean(grouped, (0, 1, 3), keepdims=True)
        variance = jnp.var(grouped, (0, 1, 3), keepdims=True)
        normal = (grouped - mean) * jax.lax.rsqrt(variance + 1e-5)
        return normal.reshape(x.shape) * self.scale + self.shift


class Embedding(eqx.Module):
    """The noise level and the condition as one vector of `width` features.

    Between two dense layers, sinusoids of the level are joined by a linear map of `cond.params`, if it was built for
    `params` of them, and a learned vector for `cond.label`, if it was built for `classes`.
    """

    first: eqx.nn.Linear
    params: eqx.nn.Linear | None
    label: eqx.nn.Embedding | None
    second: eqx.nn.Linear

    def __init__(self, width: int, params: int | None, classes: int | None, *, key: PRNGKeyArray):
        key_first, key_params, key_label, key_second = jr.split(key, 4)
        self.first = eqx.nn.Linear(2 * _FREQUENCIES, width, key=key_first)
        self.params = None if params is None else eqx.nn.Linear(params, width, key=key_params)
        self.label = None if classes is None else eqx.nn.Embedding(classes, width, key=key_label)
        self.second = eqx.nn.Linear(width, width, key=key_second)

    def __call__(self, level: Float[Array, ""], cond) -> Features:
        embedded = self.first(sinusoids(level))
        for name, layer in (("params", self.params), ("label", self.label)):
            part = condition_part(cond, name, expected=layer is not None)
            if layer is not None:
                embedded = embedded + layer(part)
        return jax.nn.silu(self.second(jax.nn.silu(embedded)))


_FREQUENCIES = 16


def sinusoids(level: Float[Array, ""]) -> Features:
    """cos and sin of the level at fixed frequencies, from 1/8 to 8 radians a unit of log tan(theta)."""
    angles = level * jnp.geomspace(0.125, 8.0, _FREQUENCIES, dtype=level.dtype)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])


def check_sizes(network: str, dropout: float, **sizes: int) -> None:
    """Raise unless every size is positive and dropout is a probability below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{network}: {name} = {size}; pass {name} >= 1.")
    if not 0 <= dropout < 1:
        raise ValueError(f"{network}: dropout = {dropout}; pass 0 <= dropout < 1.")


def condition_part(cond: Any, name: str, *, expected: bool) -> Any:
    """A part of the condition, None where there is none; raise unless that is what the network was built for."""
    part = getattr(cond, name, None)
    if (part is not None) != expected:
        built, given = ("for", "has none") if expected else ("without", "has one")
        raise ValueError(
            f"network: it was built {built} a condition on `{name}`, but cond {given}; "
            "pass a Condition with just the parts the network was built for."
        )
    return part


def modulate(
    x: Float[Array, "*space features"], scale_shift: Float[Array, " twice"]
) -> Float[Array, "*space features"]:
    """x (1 + scale) + shift."""
    scale, shift = jnp.split(scale_shift, 2)
    return x * (1 + scale) + shift


def dropout(x: Float[Array, "*any"], rate: float, key: PRNGKeyArray | None) -> Float[Array, "*any"]:
    """Zero each entry with probability `rate` and scale the rest by 1 / (1 - rate); nothing without a key."""
    if key is None or rate == 0:
        return x
    return jnp.where(jr.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def key_stream(key: PRNGKeyArray | None) -> Iterator[Any]:
    """As many keys as are asked for, or as many Nones."""
    return itertools.repeat(None) if key is None else (jr.fold_in(key, number) for number in itertools.count())


def zeros_like(layer: Layer) -> Layer:
    """The layer with every parameter zero, as last layers start."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, layer)
