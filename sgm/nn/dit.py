"""A transformer on patches of an image."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.conditioning import Conditioning, Embedding, join_image
from sgm.nn.layers import (
    Image,
    Linear,
    Outputs,
    Precision,
    SelfAttention,
    check_image_shape,
    check_options,
    dropout,
    layer_norm,
    modulate,
    to_precision,
    zeros_like,
)
from sgm.nn.network import AbstractNetwork

Tokens = Float[Array, "tokens width"]

_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}

DIT_PRESETS: dict[str, Any] = {
    f"{name}/{patch}": {"width": width, "depth": depth, "heads": heads, "patch": patch}
    for name, (width, depth, heads) in _SIZES.items()
    for patch in (2, 4, 8)
}
"""Options of `DiT` by the names of Peebles and Xie 2023 (arXiv:2212.09748, table 1): S, B, L or XL, over the patch."""


# Of a block, only what its linear layers return is kept for the gradient; to find the rest again costs less than to
# carry it out of the loop over the blocks.
_SAVE_LINEAR = jax.checkpoint_policies.save_only_these_names("linear")


class DiTBlock(eqx.Module):
    """Attention and a two-layer perceptron, each beside a shortcut, scaled, shifted and gated by the embedding.

    The gates are zero at the start (adaLN-Zero).
    """

    modulation: Linear
    attention: SelfAttention
    inlet: Linear
    outlet: Linear
    rate: float = eqx.field(static=True)

    def __init__(self, width: int, heads: int, rate: float, *, key: PRNGKeyArray):
        key_modulation, key_attention, key_inlet, key_outlet = jr.split(key, 4)
        self.modulation = zeros_like(Linear(width, 6 * width, key=key_modulation))
        self.attention = SelfAttention(width, heads, key=key_attention)
        self.inlet = Linear(width, 4 * width, key=key_inlet)
        self.outlet = Linear(4 * width, width, key=key_outlet)
        self.rate = rate

    def __call__(self, x: Tokens, embedded, key) -> Tokens:
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(self.modulation(embedded), 6)
        key1, key2 = (None, None) if key is None else jr.split(key)
        mixed = self.attention(modulate(layer_norm(x), shift1, scale1))
        x = x + gate1 * dropout(mixed, self.rate, key1)
        hidden = self.outlet(jax.nn.gelu(self.inlet(modulate(layer_norm(x), shift2, scale2))))
        return x + gate2 * dropout(hidden, self.rate, key2)


class DiT(AbstractNetwork):
    """A diffusion transformer for images.

    Patches of pixels become tokens with sinusoidal positions in two dimensions. The blocks that follow are one scan, so
    that compile time does not grow with the depth.
    The output starts at zero. `DiT(shape, **DIT_PRESETS["B/2"], key=key)` has the sizes of the paper.

    Arguments:
        shape: Shape of one example, (height, width, channels).
        width: Number of features of a token.
        depth: Number of blocks.
        heads: Number of attention heads, which must divide the width.
        patch: Pixels a side of a patch, which must divide height and width.
        outputs: Number of outputs of each entry, one after the other along the last axis; 2 for
            `sgm.model.WithVariance`.
        dropout: Probability with which a feature that a block adds is dropped in training.
        conditioning: What the network is conditioned on; an image joins the patches as channels.
        precision: Precision in which the blocks compute; parameters, embedding and output keep their own.
        remat: Whether to compute each block's activations again for its gradient: less memory, more time.
        key: Key of the initial weights.

    Reference: Peebles and Xie 2023 (arXiv:2212.09748).
    """

    embedding: Embedding
    inlet: Linear
    blocks: DiTBlock
    modulation: Linear
    outlet: Linear
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 2,
        *,
        outputs: int = 1,
        dropout: float = 0.0,
        conditioning: Conditioning = Conditioning(),
        precision: Precision = "float32",
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        check_options("DiT", dropout, precision, width=width, depth=depth, heads=heads, patch=patch, outputs=outputs)
        check_image_shape("DiT", shape, patch)
        if width % heads or width % 4:
            raise ValueError(f"DiT: width = {width} must be divisible by heads = {heads} and by 4; pass such a width.")
        key_embedding, key_inlet, key_outlet, *keys = jr.split(key, 3 + depth)
        image_channels = conditioning.image[-1] if conditioning.image else 0
        self.embedding = Embedding(width, conditioning, key=key_embedding)
        self.inlet = Linear(patch**2 * (shape[-1] + image_channels), width, key=key_inlet)
        self.blocks = eqx.filter_vmap(lambda key: DiTBlock(width, heads, dropout, key=key))(jnp.stack(keys))
        self.modulation = zeros_like(Linear(width, 2 * width, key=key_outlet))
        self.outlet = zeros_like(Linear(width, patch**2 * outputs * shape[-1], key=key_outlet))
        self.shape, self.width, self.depth, self.heads, self.patch = tuple(shape), width, depth, heads, patch
        self.outputs, self.dropout, self.precision, self.remat = outputs, dropout, precision, remat

    @property
    def conditioning(self) -> Conditioning:
        """What the network is conditioned on."""
        return self.embedding.conditioning

    def __call__(self, level: Float[Array, ""], u: Image, cond=None, key: PRNGKeyArray | None = None) -> Outputs:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        check_image_shape("DiT", u.shape, self.patch)
        height, width, _ = u.shape
        embedded = to_precision(self.embedding(level, cond), self.precision)
        patches = to_patches(join_image(u, self.embedding.image(cond)), self.patch)
        tokens = self.inlet(to_precision(patches, self.precision))
        grid = height // self.patch, width // self.patch
        tokens = tokens + jnp.asarray(positions(*grid, tokens.shape[-1]), tokens.dtype)
        depth = self.blocks.modulation.bias.shape[0]
        arrays, static = eqx.partition((self.blocks, None if key is None else jr.split(key, depth)), eqx.is_array)

        def apply(tokens, arrays):
            block, block_key = eqx.combine(arrays, static)
            return block(tokens, embedded, block_key), None

        # A scan keeps what is computed again from being merged with what it repeats.
        kept = jax.checkpoint(apply, policy=None if self.remat else _SAVE_LINEAR, prevent_cse=False)
        tokens, _ = jax.lax.scan(kept, tokens, arrays)
        tokens = modulate(layer_norm(tokens), *jnp.split(self.modulation(embedded), 2))
        return from_patches(self.outlet(tokens), height, width, self.patch).astype(u.dtype)


def to_patches(image: Image, patch: int) -> Float[Array, "tokens features"]:
    """The image's patches in row-major order, each as one vector."""
    return rearrange(image, "(h p) (w q) c -> (h w) (p q c)", p=patch, q=patch)


def from_patches(
    patches: Float[Array, "tokens features"], height: int, width: int, patch: int
) -> Float[Array, "height width channels"]:
    """The image of these patches: the inverse of `to_patches`."""
    return rearrange(patches, "(h w) (p q c) -> (h p) (w q) c", h=height // patch, w=width // patch, p=patch, q=patch)


def positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Sines and cosines of each token's row, and of its column, at width / 4 frequencies from 1 towards 1e-4."""
    frequencies = 1e-4 ** np.linspace(0, 1, width // 4, endpoint=False)
    angles = [place.reshape(-1, 1) * frequencies for place in np.indices((rows, columns))]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=-1)
