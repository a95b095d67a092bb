"""A transformer on patches of signals, images and volumes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.conditioning import Conditioning, Embedding, join_image
from sgm.nn.layers import (
    Features,
    Linear,
    Outputs,
    Precision,
    SelfAttention,
    Space,
    angles_of,
    check_divisible,
    check_input,
    check_options,
    check_rotary,
    check_space,
    cropped_to,
    dropout,
    layer_norm,
    modulate,
    padded_to,
    rotations_of,
    to_precision,
    zeros_like,
)
from sgm.nn.network import AbstractNetwork
from sgm.nn.stacked import Stacked

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
SAVE_LINEAR = jax.checkpoint_policies.save_only_these_names("linear")


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

    def __call__(self, x: Tokens, embedded, key, rotations=None, seen=None) -> Tokens:
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(self.modulation(embedded), 6)
        key1, key2 = (None, None) if key is None else jr.split(key)
        mixed = self.attention(modulate(layer_norm(x), shift1, scale1), rotations, seen)
        x = x + gate1 * dropout(mixed, self.rate, key1)
        hidden = self.outlet(jax.nn.gelu(self.inlet(modulate(layer_norm(x), shift2, scale2))))
        return x + gate2 * dropout(hidden, self.rate, key2)


def stacked_blocks(depth: int, width: int, heads: int, rate: float, *, key: PRNGKeyArray) -> Stacked:
    """So many blocks."""
    return Stacked(eqx.filter_vmap(lambda key: DiTBlock(width, heads, rate, key=key))(jr.split(key, depth)))


def through_blocks(
    blocks: Stacked, tokens: Tokens, embedded: Features, key: PRNGKeyArray | None, remat: bool, *more: Any
) -> Tokens:
    """What the blocks make of the tokens. `more` is given to the attention of each."""

    def apply(block, tokens, block_key):
        return block(tokens, embedded, block_key, *more), None

    # A scan keeps what is computed again from being merged with what it repeats.
    kept = eqx.filter_checkpoint(apply, policy=None if remat else SAVE_LINEAR, prevent_cse=False)
    keys = None if key is None else jr.split(key, len(blocks))
    return blocks.scan(kept, tokens, keys)[0]


class DiT(AbstractNetwork):
    """A diffusion transformer for signals, images and volumes.

    Patches become tokens with sinusoidal positions along each axis of space. The blocks that follow are one scan, so
    that compile time does not grow with the depth.
    The output starts at zero. `DiT(shape, **DIT_PRESETS["B/2"], key=key)` has the sizes of the paper.

    Arguments:
        shape: Shape of one example: (length, channels), (height, width, channels) or (depth, height, width, channels).
        width: Number of features of a token.
        depth: Number of blocks.
        heads: Number of attention heads, which must divide the width.
        patch: Entries a side of a patch, which must divide every axis of space, or `pad` is to make it so.
        outputs: Number of outputs of each entry, one after the other along the last axis; 2 for
            `sgm.model.WithVariance`.
        periodic: Whether space is a torus, on which positions are waves of whole periods. With `rotary`, a shift of the
            input by whole patches shifts the output.
        rotary: Whether positions are known to attention alone, by how far apart two are: rotary positions, in the place
            of sinusoids that are added.
        pad: Whether an axis of another size is padded with zeros inside, and the output cropped.
        dropout: Probability with which a feature that a block adds is dropped in training.
        conditioning: What the network is conditioned on; an image joins the patches as channels.
        precision: Precision in which the blocks compute; parameters, embedding and output keep their own.
        remat: Whether to compute each block's activations again for its gradient: less memory, more time.
        key: Key of the initial weights.

    Raises:
        TypeError: for a width, a depth, heads or a patch that is no integer.
        ValueError: for sizes that the patch does not divide, for `pad` on a torus, for a width that the heads or the
            axes do not divide, and for `rotary` with too few features in a head.

    Example:
        >>> network = DiT((16, 16, 16, 1), 96, 6, 4, patch=4, key=jax.random.key(0))  # volumes
        >>> model = sgm.ScoreModel(network, shape=(16, 16, 16, 1))

    Reference: Peebles and Xie 2023 (arXiv:2212.09748).
    """

    embedding: Embedding
    inlet: Linear
    blocks: Stacked
    modulation: Linear
    outlet: Linear
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    rotary: bool = eqx.field(static=True)
    pad: bool = eqx.field(static=True)
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
        periodic: bool = False,
        rotary: bool = False,
        pad: bool = False,
        dropout: float = 0.0,
        conditioning: Conditioning = Conditioning(),
        precision: Precision = "float32",
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        check_options("DiT", dropout, precision, width=width, depth=depth, heads=heads, patch=patch, outputs=outputs)
        check_space("DiT", shape)
        if pad and periodic:
            raise ValueError("DiT: pad and periodic are True, but a torus has no end to pad; leave one of them out.")
        rank = len(shape) - 1
        if width % heads or width % (2 * rank):
            raise ValueError(
                f"DiT: width = {width} must be divisible by heads = {heads} and by {2 * rank}; pass such a width."
            )
        conditioning.check_space("DiT", len(shape))
        if rotary:
            check_rotary("DiT", width // heads, rank, "pass a larger width or fewer heads")
        key_embedding, key_inlet, key_outlet, key_blocks = jr.split(key, 4)
        image_channels = conditioning.image[-1] if conditioning.image else 0
        self.embedding = Embedding(width, conditioning, key=key_embedding)
        self.inlet = Linear(patch**rank * (shape[-1] + image_channels), width, key=key_inlet)
        self.blocks = stacked_blocks(depth, width, heads, dropout, key=key_blocks)
        self.modulation = zeros_like(Linear(width, 2 * width, key=key_outlet))
        self.outlet = zeros_like(Linear(width, patch**rank * outputs * shape[-1], key=key_outlet))
        self.shape, self.width, self.depth, self.heads, self.patch = tuple(shape), width, depth, heads, patch
        self.outputs, self.periodic, self.rotary, self.pad = outputs, periodic, rotary, pad
        self.dropout, self.precision, self.remat = dropout, precision, remat
        self._check_divisible(shape)

    @property
    def conditioning(self) -> Conditioning:
        """What the network is conditioned on."""
        return self.embedding.conditioning

    def __call__(self, level: Float[Array, ""], u: Space, cond=None, key: PRNGKeyArray | None = None) -> Outputs:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        check_input("DiT", u, self.shape)
        self._check_divisible(u.shape)
        embedded = to_precision(self.embedding(level, cond), self.precision)
        joined = padded_to(join_image(u, self.embedding.image(cond), self.periodic), self.patch)
        grid = tuple(size // self.patch for size in joined.shape[:-1])
        tokens = self.inlet(to_precision(to_patches(joined, self.patch), self.precision))
        rotations = rotations_of(grid, self.width // self.heads, self.periodic) if self.rotary else None
        if not self.rotary:
            tokens = tokens + jnp.asarray(positions(grid, self.width, self.periodic), tokens.dtype)
        tokens = through_blocks(self.blocks, tokens, embedded, key, self.remat, rotations)
        tokens = modulate(layer_norm(tokens), *jnp.split(self.modulation(embedded), 2))
        return cropped_to(from_patches(self.outlet(tokens), grid, self.patch), u.shape[:-1]).astype(u.dtype)

    def _check_divisible(self, shape):
        if not self.pad:
            remedy = "resize the data or use another patch"
            check_divisible("DiT", shape, self.patch, remedy if self.periodic else f"{remedy}, or pass pad=True")


def to_patches(x: Space, patch: int) -> Float[Array, "tokens features"]:
    """The patches of x in row-major order, each as one vector."""
    rank = x.ndim - 1
    split = x.reshape(*(part for size in x.shape[:-1] for part in (size // patch, patch)), x.shape[-1])
    grid, within = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    return split.transpose(*grid, *within, 2 * rank).reshape(-1, patch**rank * x.shape[-1])


def from_patches(patches: Float[Array, "tokens features"], grid: tuple[int, ...], patch: int) -> Space:
    """The array of these patches, of which the grid has so many along each axis: the inverse of `to_patches`."""
    rank = len(grid)
    apart = patches.reshape(*grid, *[patch] * rank, -1)
    order = [place for axis in range(rank) for place in (axis, rank + axis)]
    return apart.transpose(*order, 2 * rank).reshape(*(size * patch for size in grid), apart.shape[-1])


def positions(grid: tuple[int, ...], width: int, periodic: bool = False) -> np.ndarray:
    """Sines and cosines of each token's place along each axis, at width / (2 axes) frequencies.

    They are from 1 towards 1e-4 radians a token, or if `periodic`, 1, 2, ... turns around the axis.
    """
    angles = angles_of(grid, width // (2 * len(grid)), periodic)
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=-1)
