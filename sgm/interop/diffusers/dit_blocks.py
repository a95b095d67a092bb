"""What the transformer of diffusers is made of: attributes have the names of its tensors."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.interop.timestep.attention import attend_tokens
from sgm.interop.timestep.embeddings import LabelEmbedding, TimestepEmbedding, sinusoids
from sgm.nn.dit import Tokens, to_patches
from sgm.nn.layers import Features, Image, Linear, angles_of, dropout, layer_norm, modulate
from sgm.random import initial

_WAVES = 256


def _gelu_quick(x):
    return x * jax.nn.sigmoid(1.702 * x)


# By diffusers' names: the function, and whether it acts on a second half of the features, by which it multiplies the
# first half.
ACTIVATIONS: dict[str, tuple[Callable, bool]] = {
    "gelu": (functools.partial(jax.nn.gelu, approximate=False), False),
    "gelu-approximate": (jax.nn.gelu, False),
    "geglu": (functools.partial(jax.nn.gelu, approximate=False), True),
    "geglu-approximate": (_gelu_quick, False),
    "swiglu": (jax.nn.silu, True),
    "linear-silu": (jax.nn.silu, False),
}


class ClassEmbedder(eqx.Module):
    """What the label is embedded by, under the name that its tensor has."""

    embedding_table: LabelEmbedding


class TimestepLabelEmbedding(eqx.Module):
    """The sum of what timestep and label are embedded as."""

    timestep_embedder: TimestepEmbedding
    class_embedder: ClassEmbedder

    def __init__(self, width, classes, *, key):
        key_timestep, key_label = jr.split(key)
        self.timestep_embedder = TimestepEmbedding(_WAVES, width, key=key_timestep)
        self.class_embedder = ClassEmbedder(LabelEmbedding(classes + 1, width, key=key_label))

    def __call__(self, timestep, label, dtype) -> Features:
        waves = sinusoids(timestep, _WAVES, flip_sin_to_cos=True, freq_shift=1).astype(dtype)
        return self.timestep_embedder(waves) + self.class_embedder.embedding_table(label).astype(dtype)


class AdaLayerNormZero(eqx.Module):
    """What a block embeds the timestep and the label by, and the layer that makes scales, shifts and gates of it."""

    emb: TimestepLabelEmbedding
    linear: Linear

    def __init__(self, width, classes, *, key):
        key_embedding, key_linear = jr.split(key)
        self.emb = TimestepLabelEmbedding(width, classes, key=key_embedding)
        self.linear = Linear(width, 6 * width, key=key_linear)


class TokenAttention(eqx.Module):
    """Softmax attention among tokens."""

    to_q: Linear
    to_k: Linear
    to_v: Linear
    to_out: tuple[Linear]
    heads: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    def __init__(self, width, heads, rate, bias, *, key):
        key_q, key_k, key_v, key_out = jr.split(key, 4)
        self.to_q, self.to_k, self.to_v = (Linear(width, width, bias=bias, key=key) for key in (key_q, key_k, key_v))
        self.to_out = (Linear(width, width, key=key_out),)
        self.heads, self.rate = heads, rate

    def __call__(self, x: Tokens, key: PRNGKeyArray | None) -> Tokens:
        mixed = attend_tokens(self.to_q(x), self.to_k(x), self.to_v(x), self.heads)
        return dropout(self.to_out[0](mixed), self.rate, key)


class LayerNorm(eqx.Module):
    """Each token's features with mean 0 and variance 1, then scaled and shifted where it has a scale and a shift."""

    scale: Float[Array, "*depth width"] | None
    shift: Float[Array, "*depth width"] | None
    epsilon: float = eqx.field(static=True)

    def __init__(self, width, affine, epsilon):
        self.scale, self.shift = (jnp.ones(width), jnp.zeros(width)) if affine else (None, None)
        self.epsilon = epsilon

    def __call__(self, x: Tokens) -> Tokens:
        normal = layer_norm(x, self.epsilon)
        if self.scale is None or self.shift is None:
            return normal
        return normal * self.scale.astype(x.dtype) + self.shift.astype(x.dtype)


class Activation(eqx.Module):
    """An activation function of a linear layer, or of its second half, which multiplies the first."""

    proj: Linear
    name: str = eqx.field(static=True)

    def __init__(self, inputs, outputs, name, *, key):
        is_gated = ACTIVATIONS[name][1]
        self.proj = Linear(inputs, (1 + is_gated) * outputs, key=key)
        self.name = name

    def __call__(self, x: Tokens) -> Float[Array, "tokens outputs"]:
        function, is_gated = ACTIVATIONS[self.name]
        if not is_gated:
            return function(self.proj(x))
        first, second = jnp.split(self.proj(x), 2, axis=-1)
        return first * function(second)


class FeedForward(eqx.Module):
    """A perceptron with a hidden layer of four times as many features."""

    net: tuple[Activation, None, Linear]  # between them, the dropout
    rate: float = eqx.field(static=True)

    def __init__(self, width, activation, rate, *, key):
        key_inlet, key_outlet = jr.split(key)
        self.net = (
            Activation(width, 4 * width, activation, key=key_inlet),
            None,
            Linear(4 * width, width, key=key_outlet),
        )
        self.rate = rate

    def __call__(self, x: Tokens, key: PRNGKeyArray | None) -> Tokens:
        inlet, _, outlet = self.net
        return outlet(dropout(inlet(x), self.rate, key))


class Block(eqx.Module):
    """Attention and a perceptron, each beside a shortcut, scaled, shifted and gated by what is embedded."""

    norm1: AdaLayerNormZero
    attn1: TokenAttention
    norm3: LayerNorm
    ff: FeedForward

    def __init__(self, width, heads, classes, activation, rate, affine, epsilon, bias, *, key):
        key_norm, key_attention, key_perceptron = jr.split(key, 3)
        self.norm1 = AdaLayerNormZero(width, classes, key=key_norm)
        self.attn1 = TokenAttention(width, heads, rate, bias, key=key_attention)
        self.norm3 = LayerNorm(width, affine, epsilon)
        self.ff = FeedForward(width, activation, rate, key=key_perceptron)

    def __call__(self, x: Tokens, embedded: Features, key: PRNGKeyArray | None) -> Tokens:
        key_attention, key_perceptron = (None, None) if key is None else jr.split(key)
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(self.norm1.linear(jax.nn.silu(embedded)), 6)
        x = x + gate1 * self.attn1(modulate(layer_norm(x), shift1, scale1), key_attention)
        return x + gate2 * self.ff(modulate(self.norm3(x), shift2, scale2), key_perceptron)


class PatchConvolution(eqx.Module):
    """A convolution whose stride is its size, so that each patch is one vector."""

    kernel: Float[Array, "patch patch inputs width"]
    bias: Features

    def __init__(self, inputs, width, patch, *, key):
        key_kernel, key_bias = jr.split(key)
        reach = (patch**2 * inputs) ** -0.5
        self.kernel = initial(key_kernel, (patch, patch, inputs, width), reach)
        self.bias = initial(key_bias, (width,), reach)

    def __call__(self, x: Image) -> Float[Array, "tokens features"]:
        kernel = self.kernel.reshape(-1, self.kernel.shape[-1])
        return to_patches(x, self.kernel.shape[0]) @ kernel.astype(x.dtype) + self.bias.astype(x.dtype)


class PatchEmbed(eqx.Module):
    """A linear map of each patch, with sines and cosines of its place."""

    proj: PatchConvolution

    def __init__(self, inputs, width, patch, *, key):
        self.proj = PatchConvolution(inputs, width, patch, key=key)

    def __call__(self, x: Image, size: int) -> Float[Array, "tokens features"]:
        """Tokens in row-major order, at places of a grid that is stretched to `size` patches a side."""
        tokens, patch = self.proj(x), self.proj.kernel.shape[0]
        grid = (x.shape[0] // patch, x.shape[1] // patch)
        return tokens + jnp.asarray(_positions(grid, tokens.shape[-1], size), x.dtype)


def _positions(grid: tuple[int, int], width: int, size: int) -> np.ndarray:
    """Sines and cosines of each place's column, then of its row, in a grid that is stretched to `size` places."""
    rows, columns = (
        angles * (size / count) for angles, count in zip(angles_of(grid, width // 4, False), grid, strict=True)
    )
    return np.concatenate([wave(angles) for angles in (columns, rows) for wave in (np.sin, np.cos)], axis=-1)
