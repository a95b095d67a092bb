"""The `DiTTransformer2DModel` of diffusers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.checks import check_at_least, check_count
from sgm.interop.diffusers.dit_blocks import ACTIVATIONS, Block, PatchEmbed
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.nn.dit import SAVE_LINEAR, from_patches
from sgm.nn.layers import Image, Linear, check_divisible, check_input, check_options, layer_norm, modulate
from sgm.nn.stacked import Stacked


class DiTTransformer2DModel(AbstractTimestepNetwork):
    """The diffusion transformer of diffusers, for square images with a label.

    Each block has its own embedding of the timestep and of the label; that of the first block also drives the output.
    A table of labels has one row more than there are classes: the null, of label `num_embeds_ada_norm`, which stands
    for no label. A label that is none of these makes the output nan. Unlike that of diffusers in training, it drops no
    label by itself: train it with `Loss(condition_dropout=0.1)`.

    A config.json may name it `Transformer2DModel`, as early files do, with `norm_type="ada_norm_zero"`, and have that
    class's other fields at the values that change nothing. No other transformer of diffusers is
    supported: `PixArtTransformer2DModel`, `HunyuanDiT2DModel` and their like read text. It has no class for SiT.

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
        >>> network = DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8, num_embeds_ada_norm=10, key=key)
        >>> network.shape, network.outputs, network.classes  # of network(x, timestep, label)
        ((8, 8, 4), 4, 10)

    Reference: Peebles and Xie 2023 (arXiv:2212.09748).
    """

    pos_embed: PatchEmbed
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
        self.num_embeds_ada_norm, self.upcast_attention = num_embeds_ada_norm, upcast_attention
        self.norm_type, self.norm_elementwise_affine, self.norm_eps = norm_type, norm_elementwise_affine, norm_eps
        self._check()
        key_patches, key_blocks, key_1, key_2 = jr.split(key, 4)
        width = num_attention_heads * attention_head_dim
        self.pos_embed = PatchEmbed(in_channels, width, patch_size, key=key_patches)
        how = (num_attention_heads, num_embeds_ada_norm, activation_fn, dropout)
        norm = (norm_elementwise_affine, norm_eps)
        blocks = eqx.filter_vmap(lambda key: Block(width, *how, *norm, attention_bias, key=key))
        self.transformer_blocks = Stacked(blocks(jr.split(key_blocks, num_layers)))
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
        check_at_least(name, "norm_eps", self.norm_eps, 0)
        width = self.num_attention_heads * self.attention_head_dim
        if width % 4:
            raise ValueError(
                f"{name}: num_attention_heads * attention_head_dim = {width}, which 4 must divide for the sines and "
                "cosines of two axes; pass other sizes."
            )
        check_divisible(name, self.shape, self.patch_size, "pass another sample_size or patch_size")
        if self.activation_fn not in ACTIVATIONS:
            raise ValueError(f"{name}: activation_fn = {self.activation_fn!r}; pass one of {', '.join(ACTIVATIONS)}.")
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
    ) -> Float[Array, "height width outputs"]:
        name, patch = type(self).__name__, self.patch_size
        check_input(name, x, self.shape)
        check_divisible(name, x.shape, patch, "resize the data")
        grid = (x.shape[0] // patch, x.shape[1] // patch)
        row = jnp.asarray(self.classes) if label is None else label
        embeddings = self.transformer_blocks.each.norm1.emb
        embedded = jax.vmap(lambda embedding: embedding(timestep, row, x.dtype))(embeddings)
        tokens = self._through_blocks(self.pos_embed(x, self.sample_size // patch), embedded, key)
        shift, scale = jnp.split(self.proj_out_1(jax.nn.silu(embedded[0])), 2)
        return from_patches(self.proj_out_2(modulate(layer_norm(tokens), shift, scale)), grid, patch)

    def _through_blocks(self, tokens, embedded, key):
        # Without the embeddings: a loop would carry a table of labels into each step.
        blocks = eqx.tree_at(lambda blocks: blocks.each.norm1.emb, self.transformer_blocks, None)
        keys = None if key is None else jr.split(key, self.num_layers)

        def apply(block, tokens, more):
            return block(tokens, *more), None

        # A scan keeps what is computed again from being merged with what it repeats.
        kept = eqx.filter_checkpoint(apply, policy=SAVE_LINEAR, prevent_cse=False)
        return blocks.scan(kept, tokens, (embedded, keys))[0]
