"""The `DiTTransformer2DModel` of diffusers."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.checks import check_count
from sgm.interop.diffusers.embeddings import TimestepEmbedding, sinusoids
from sgm.interop.diffusers.network import AbstractDiffusersNetwork
from sgm.interop.diffusers.tensors import Stacked
from sgm.nn.dit import SAVE_LINEAR, Tokens, from_patches, to_patches
from sgm.nn.layers import (
    Features,
    Image,
    Linear,
    angles_of,
    check_divisible,
    check_input,
    check_options,
    dropout,
    layer_norm,
    modulate,
)

_WAVES = 256


def _gelu_quick(x):
    return x * jax.nn.sigmoid(1.702 * x)


# By diffusers' names: the function, and whether it acts on a second half of the features, by which it multiplies the
# first half.
_ACTIVATIONS: dict[str, tuple[Callable, bool]] = {
    "gelu": (functools.partial(jax.nn.gelu, approximate=False), False),
    "gelu-approximate": (jax.nn.gelu, False),
    "geglu": (functools.partial(jax.nn.gelu, approximate=False), True),
    "geglu-approximate": (_gelu_quick, False),
    "swiglu": (jax.nn.silu, True),
    "linear-silu": (jax.nn.silu, False),
}


class DiTTransformer2DModel(AbstractDiffusersNetwork):
    """The diffusion transformer of diffusers, for square images with a label.

    Each block has its own embedding of the timestep and of the label; that of the first block also drives the output.
    A table of labels has one row more than there are classes: the null, of label `num_embeds_ada_norm`, which stands
    for no label. Training drops no label by itself, as diffusers does: pass `Loss(condition_dropout=0.1)`. A label that
    is none of these makes the output nan.

    `PixArtTransformer2DModel`, `Transformer2DModel` with other norms, and other transformers of diffusers are other
    networks: they read text, or have other norms and positions.

    Arguments:
        num_attention_heads: Number of attention heads.
        attention_head_dim: Number of features of a head; with the number of heads that of a token, a multiple of 4.
        in_channels: Number of channels of an example.
        out_channels: Number of channels of the output; by default `in_channels`.
        num_layers: Number of blocks.
        dropout: Probability with which a feature of the attention's output and of the perceptron's hidden layer is
            dropped in training.
        norm_num_groups: Changes nothing: no layer of it is a group norm.
        attention_bias: Whether queries, keys and values have a bias.
        sample_size: Height and width of an example. Others that the patch divides are taken too: positions then are
            stretched to this size.
        patch_size: Entries a side of a patch.
        activation_fn: "gelu-approximate", "gelu", "geglu", "geglu-approximate", "swiglu" or "linear-silu".
        num_embeds_ada_norm: Number of classes.
        upcast_attention: Changes nothing: scores and their softmax are always found in float32.
        norm_type: "ada_norm_zero".
        norm_elementwise_affine: Whether the norm before the perceptron has a scale and a shift of its own.
        norm_eps: What that norm adds to the variance; the others add 1e-6.
        key: Key of the initial weights.

    Raises:
        TypeError: for sizes that are no integers.
        ValueError: for sizes below 1, a patch that does not divide the size, tokens whose features 4 does not divide,
            an activation or a norm that is not known, and a dropout outside [0, 1).

    Example:
        >>> network = DiTTransformer2DModel(2, 16, num_layers=3, sample_size=8, key=jax.random.key(0))
        >>> output = network(jnp.zeros((8, 8, 4)), jnp.asarray(999.0), jnp.asarray(3))

    Reference: Peebles and Xie 2023 (arXiv:2212.09748).
    """

    pos_embed: "_PatchEmbed"
    transformer_blocks: Stacked
    proj_out_1: Linear
    proj_out_2: Linear
    num_attention_heads: int = eqx.field(static=True)
    attention_head_dim: int = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int | None = eqx.field(static=True)
    num_layers: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    norm_num_groups: int = eqx.field(static=True)
    attention_bias: bool = eqx.field(static=True)
    sample_size: int = eqx.field(static=True)
    patch_size: int = eqx.field(static=True)
    activation_fn: str = eqx.field(static=True)
    num_embeds_ada_norm: int = eqx.field(static=True)
    upcast_attention: bool = eqx.field(static=True)
    norm_type: str = eqx.field(static=True)
    norm_elementwise_affine: bool = eqx.field(static=True)
    norm_eps: float = eqx.field(static=True)

    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int | None = None,
        num_layers: int = 28,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        attention_bias: bool = True,
        sample_size: int = 32,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int = 1000,
        upcast_attention: bool = False,
        norm_type: str = "ada_norm_zero",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-5,
        *,
        key: PRNGKeyArray,
    ):
        self.num_attention_heads, self.attention_head_dim = num_attention_heads, attention_head_dim
        self.in_channels, self.out_channels, self.num_layers = in_channels, out_channels, num_layers
        self.dropout, self.norm_num_groups, self.attention_bias = dropout, norm_num_groups, attention_bias
        self.sample_size, self.patch_size, self.activation_fn = sample_size, patch_size, activation_fn
        self.num_embeds_ada_norm, self.upcast_attention, self.norm_type = num_embeds_ada_norm, upcast_attention, norm_type
        self.norm_elementwise_affine, self.norm_eps = norm_elementwise_affine, norm_eps
        self._check()
        key_patches, key_blocks, key_1, key_2 = jr.split(key, 4)
        width = num_attention_heads * attention_head_dim
        self.pos_embed = _PatchEmbed(in_channels, width, patch_size, key=key_patches)
        self.transformer_blocks = Stacked(
            eqx.filter_vmap(
                lambda key: _Block(
                    width,
                    num_attention_heads,
                    num_embeds_ada_norm,
                    activation_fn,
                    dropout,
                    norm_eps,
                    norm_elementwise_affine,
                    attention_bias,
                    key=key,
                )
            )(jr.split(key_blocks, num_layers))
        )
        self.proj_out_1 = Linear(width, 2 * width, key=key_1)
        self.proj_out_2 = Linear(width, patch_size**2 * self.outputs, key=key_2)

    def _check(self):
        name = type(self).__name__
        counts = ("num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size", "patch_size")
        for count in (*counts, "num_embeds_ada_norm"):
            check_count(name, count, getattr(self, count))
        if self.out_channels is not None:
            check_count(name, "out_channels", self.out_channels)
        check_options(name, self.dropout, "float32")
        width = self.num_attention_heads * self.attention_head_dim
        if width % 4:
            raise ValueError(
                f"{name}: num_attention_heads * attention_head_dim = {width}, which 4 must divide for the sines and "
                "cosines of two axes; pass other sizes."
            )
        check_divisible(name, self.shape, self.patch_size, "pass another sample_size or patch_size")
        if self.activation_fn not in _ACTIVATIONS:
            raise ValueError(f"{name}: activation_fn = {self.activation_fn!r}; pass one of {', '.join(_ACTIVATIONS)}.")
        if self.norm_type != "ada_norm_zero":
            raise ValueError(
                f'{name}: norm_type = {self.norm_type!r}; pass "ada_norm_zero", the only one for which diffusers has '
                "this network."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.sample_size, self.sample_size, self.in_channels)

    @property
    def outputs(self) -> int:
        return self.in_channels if self.out_channels is None else self.out_channels

    @property
    def classes(self) -> int:
        return self.num_embeds_ada_norm

    @property
    def has_null(self) -> bool:
        return True

    def __call__(
        self,
        x: Image,
        timestep: Float[Array, ""],
        label: Int[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Image:
        name, patch = type(self).__name__, self.patch_size
        check_input(name, x, self.shape)
        check_divisible(name, x.shape, patch, "resize the data")
        height, width = x.shape[0] // patch, x.shape[1] // patch
        tokens = self.pos_embed(x, self.sample_size // patch)
        blocks, label = self.transformer_blocks.blocks, self.classes if label is None else label
        # Of all blocks at once: a scan would carry the tables of labels through its steps for one row of each.
        embedded = jax.vmap(lambda emb: emb(timestep, label, x.dtype))(blocks.norm1.emb)
        tokens = self._through_blocks(tokens, embedded, key)
        shift, scale = jnp.split(self.proj_out_1(jax.nn.silu(embedded[0])), 2)
        return from_patches(self.proj_out_2(modulate(layer_norm(tokens), shift, scale)), (height, width), patch)

    def _through_blocks(self, tokens, embedded, key):
        blocks = self.transformer_blocks.blocks
        keys = None if key is None else jr.split(key, self.num_layers)
        blocks = eqx.tree_at(lambda blocks: blocks.norm1.emb, blocks, None)
        arrays, static = eqx.partition((blocks, embedded, keys), eqx.is_array)

        def apply(tokens, arrays):
            block, embedded, key = eqx.combine(arrays, static)
            return block(tokens, embedded, key), None

        # A scan keeps what is computed again from being merged with what it repeats.
        return jax.lax.scan(jax.checkpoint(apply, policy=SAVE_LINEAR, prevent_cse=False), tokens, arrays)[0]


class _Block(eqx.Module):
    """Attention and a perceptron, each beside a shortcut, scaled, shifted and gated by what is embedded."""

    norm1: "_AdaLayerNormZero"
    attn1: "_Attention"
    norm3: "_LayerNorm"
    ff: "_FeedForward"

    def __init__(self, width, heads, classes, activation, rate, epsilon, affine, bias, *, key):
        key_norm, key_attention, key_perceptron = jr.split(key, 3)
        self.norm1 = _AdaLayerNormZero(width, classes, key=key_norm)
        self.attn1 = _Attention(width, heads, rate, bias, key=key_attention)
        self.norm3 = _LayerNorm(width, epsilon, affine)
        self.ff = _FeedForward(width, activation, rate, key=key_perceptron)

    def __call__(self, x: Tokens, embedded: Features, key: PRNGKeyArray | None) -> Tokens:
        key_attention, key_perceptron = (None, None) if key is None else jr.split(key)
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(self.norm1.linear(jax.nn.silu(embedded)), 6)
        x = x + gate1 * self.attn1(modulate(layer_norm(x), shift1, scale1), key_attention)
        return x + gate2 * self.ff(modulate(self.norm3(x), shift2, scale2), key_perceptron)


class _AdaLayerNormZero(eqx.Module):
    """What a block embeds the timestep and the label by, and the layer that makes scales, shifts and gates of it."""

    emb: "_TimestepLabelEmbedding"
    linear: Linear

    def __init__(self, width, classes, *, key):
        key_embedding, key_linear = jr.split(key)
        self.emb = _TimestepLabelEmbedding(width, classes, key=key_embedding)
        self.linear = Linear(width, 6 * width, key=key_linear)


class _TimestepLabelEmbedding(eqx.Module):
    """The sum of what timestep and label are embedded as."""

    timestep_embedder: TimestepEmbedding
    class_embedder: "_LabelEmbedding"

    def __init__(self, width, classes, *, key):
        key_timestep, key_label = jr.split(key)
        self.timestep_embedder = TimestepEmbedding(_WAVES, width, key=key_timestep)
        self.class_embedder = _LabelEmbedding(classes + 1, width, key=key_label)

    def __call__(self, timestep, label, dtype) -> Features:
        waves = sinusoids(timestep, _WAVES, flip_sin_to_cos=True, freq_shift=1).astype(dtype)
        return self.timestep_embedder(waves) + self.class_embedder(label).astype(dtype)


class _LabelEmbedding(eqx.Module):
    """A learned vector for each label; nan for what is no label."""

    embedding_table: "_Table"

    def __init__(self, labels, width, *, key):
        self.embedding_table = _Table(jr.normal(key, (labels, width)))

    def __call__(self, label) -> Features:
        table = self.embedding_table.table
        return jnp.where((label >= 0) & (label < len(table)), table[label], jnp.nan)


class _Table(eqx.Module):
    table: Float[Array, "*depth labels width"]


class _Attention(eqx.Module):
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
        query, key_, value = (rearrange(to(x), "p (h c) -> p h c", h=self.heads) for to in (self.to_q, self.to_k, self.to_v))
        with jax.numpy_dtype_promotion("standard"):  # on which its handling of bfloat16 relies
            mixed = jax.nn.dot_product_attention(query, key_, value)
        return dropout(self.to_out[0](rearrange(mixed, "p h c -> p (h c)")), self.rate, key)


class _LayerNorm(eqx.Module):
    """Each token's features with mean 0 and variance 1, then scaled and shifted where it has a scale and a shift."""

    scale: Float[Array, "*depth width"] | None
    shift: Float[Array, "*depth width"] | None
    epsilon: float = eqx.field(static=True)

    def __init__(self, width, epsilon, affine):
        self.scale, self.shift = (jnp.ones(width), jnp.zeros(width)) if affine else (None, None)
        self.epsilon = epsilon

    def __call__(self, x: Tokens) -> Tokens:
        normal = layer_norm(x, self.epsilon)
        if self.scale is None or self.shift is None:
            return normal
        return normal * self.scale.astype(x.dtype) + self.shift.astype(x.dtype)


class _FeedForward(eqx.Module):
    """A perceptron with a hidden layer of four times as many features."""

    net: "tuple[_Activation, None, Linear]"  # between them, the dropout
    rate: float = eqx.field(static=True)

    def __init__(self, width, activation, rate, *, key):
        key_inlet, key_outlet = jr.split(key)
        self.net = (_Activation(width, 4 * width, activation, key=key_inlet), None, Linear(4 * width, width, key=key_outlet))
        self.rate = rate

    def __call__(self, x: Tokens, key: PRNGKeyArray | None) -> Tokens:
        inlet, _, outlet = self.net
        return outlet(dropout(inlet(x), self.rate, key))


class _Activation(eqx.Module):
    """An activation function of a linear layer, or of its second half, which multiplies the first."""

    proj: Linear
    name: str = eqx.field(static=True)

    def __init__(self, inputs, outputs, name, *, key):
        is_gated = _ACTIVATIONS[name][1]
        self.proj = Linear(inputs, (1 + is_gated) * outputs, key=key)
        self.name = name

    def __call__(self, x: Tokens) -> Float[Array, "tokens outputs"]:
        function, is_gated = _ACTIVATIONS[self.name]
        if not is_gated:
            return function(self.proj(x))
        first, second = jnp.split(self.proj(x), 2, axis=-1)
        return first * function(second)


class _PatchEmbed(eqx.Module):
    """A linear map of each patch, with sines and cosines of its place."""

    proj: "_PatchConvolution"

    def __init__(self, inputs, width, patch, *, key):
        self.proj = _PatchConvolution(inputs, width, patch, key=key)

    def __call__(self, x: Image, size: int) -> Tokens:
        """Tokens in row-major order, at places of a grid that is stretched to `size` patches a side."""
        tokens, patch = self.proj(x), self.proj.kernel.shape[0]
        return tokens + jnp.asarray(_positions((x.shape[0] // patch, x.shape[1] // patch), tokens.shape[-1], size), x.dtype)


class _PatchConvolution(eqx.Module):
    """A convolution whose stride is its size, so that each patch is one vector."""

    kernel: Float[Array, "patch patch inputs width"]
    bias: Features

    def __init__(self, inputs, width, patch, *, key):
        key_kernel, key_bias = jr.split(key)
        reach = (patch**2 * inputs) ** -0.5
        self.kernel = jr.uniform(key_kernel, (patch, patch, inputs, width), minval=-reach, maxval=reach)
        self.bias = jr.uniform(key_bias, (width,), minval=-reach, maxval=reach)

    def __call__(self, x: Image) -> Tokens:
        patch, width = self.kernel.shape[0], self.kernel.shape[-1]
        return to_patches(x, patch) @ self.kernel.reshape(-1, width).astype(x.dtype) + self.bias.astype(x.dtype)


def _positions(grid: tuple[int, int], width: int, size: int) -> np.ndarray:
    """Sines and cosines of each place's column, then of its row, in a grid that is stretched to `size` places a side."""
    rows, columns = (
        angles * (size / count) for angles, count in zip(angles_of(grid, width // 4, False), grid, strict=True)
    )
    return np.concatenate([wave(angles) for angles in (columns, rows) for wave in (np.sin, np.cos)], axis=-1)
