"""A UNet for signals, images and volumes."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_count, check_instance
from sgm.nn.conditioning import Conditioning, Embedding, join_image
from sgm.nn.convolution import Convolution
from sgm.nn.layers import (
    GroupNorm,
    Linear,
    Outputs,
    Precision,
    SelfAttention,
    Space,
    activated,
    check_divisible,
    check_input,
    check_options,
    check_rotary,
    check_space,
    cropped_to,
    dropout,
    key_stream,
    largest_divisor,
    padded_to,
    rotations_of,
    to_precision,
    zeros_like,
)
from sgm.nn.network import AbstractNetwork
from sgm.nn.waves import LONGEST_WAVE, check_waves, waves

# Sums of two branches keep the variance of one. Source: Song et al. 2021 (arXiv:2011.13456, appendix H).
_SKIP_SCALE = 0.5**0.5


def halve(x: Space) -> Float[Array, "*halved channels"]:
    """The means of pairs of entries along each axis of space: of 2, 4 or 8."""
    split = [part for size in x.shape[:-1] for part in (size // 2, 2)]
    return jnp.mean(x.reshape(*split, x.shape[-1]), axis=tuple(range(1, len(split), 2)))


def double(x: Space) -> Float[Array, "*doubled channels"]:
    """Each entry twice along each axis of space."""
    apart = x.reshape(*(part for size in x.shape[:-1] for part in (size, 1)), x.shape[-1])
    filled = jnp.broadcast_to(apart, (*(part for size in x.shape[:-1] for part in (size, 2)), x.shape[-1]))
    return filled.reshape(*(2 * size for size in x.shape[:-1]), x.shape[-1])


class ResidualBlock(eqx.Module):
    """Two convolutions beside a shortcut, and attention among the positions if it `attends`.

    The second norm is scaled and shifted by the embedding. With `resample`, `halve` or `double`, both branches change
    their resolution before the first convolution.
    """

    norm1: GroupNorm
    conv1: Convolution
    modulation: Linear
    norm2: GroupNorm
    conv2: Convolution
    shortcut: Convolution | None
    norm3: GroupNorm | None
    attention: SelfAttention | None
    periodic: bool = eqx.field(static=True)
    rotary: bool = eqx.field(static=True)
    resample: Callable | None = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        rate: float,
        *,
        rank: int = 2,
        periodic: bool = False,
        rotary: bool = False,
        resample: Callable | None = None,
        attends: bool = False,
        key: PRNGKeyArray,
    ):
        key1, key2, key_modulation, key_shortcut, key_attention = jr.split(key, 5)
        space = {"rank": rank, "periodic": periodic}
        self.norm1 = GroupNorm(inputs)
        self.conv1 = Convolution(inputs, outputs, key=key1, **space)
        self.modulation = Linear(embedding, 2 * outputs, key=key_modulation)
        self.norm2 = GroupNorm(outputs)
        self.conv2 = zeros_like(Convolution(outputs, outputs, key=key2, **space))
        self.shortcut = Convolution(inputs, outputs, size=1, rank=rank, key=key_shortcut) if inputs != outputs else None
        self.norm3, self.attention = None, None
        if attends:
            heads = largest_divisor(outputs, outputs // 64)
            if rotary:
                check_rotary("UNet", outputs // heads, rank, "pass a larger width")
            attention = SelfAttention(outputs, heads, key=key_attention)
            self.norm3 = GroupNorm(outputs)
            self.attention = eqx.tree_at(lambda layer: layer.outlet, attention, replace_fn=zeros_like)
        self.periodic, self.rotary, self.resample, self.rate = periodic, rotary, resample, rate

    def __call__(self, x: Space, embedded, key) -> Float[Array, "*resampled outputs"]:
        hidden = activated(self.norm1, x)
        if self.resample is not None:
            x, hidden = self.resample(x), self.resample(hidden)
        hidden = self.conv1(hidden)
        shift, scale = jnp.split(self.modulation(embedded), 2)
        hidden = activated(self.norm2, hidden, shift, scale)
        hidden = _scaled(self.conv2)(dropout(hidden, self.rate, key))
        x = (_SKIP_SCALE * x if self.shortcut is None else _scaled(self.shortcut)(x)) + hidden
        if self.norm3 is None or self.attention is None:
            return x
        *grid, channels = x.shape
        features = channels // self.attention.heads
        rotations = rotations_of(tuple(grid), features, self.periodic) if self.rotary else None
        attention = eqx.tree_at(lambda layer: layer.outlet, self.attention, replace_fn=_scaled)
        mixed = attention(self.norm3(x).reshape(-1, channels), rotations)
        return _SKIP_SCALE * x + mixed.reshape(x.shape)


class UNet(AbstractNetwork):
    """A channels-last U-net for signals, images and volumes, of the family of DDPM++ and ADM.

    Level i has arrays of 1 / 2^i of the height and `width * multipliers[i]` channels. On the way down it has `blocks`
    residual blocks; on the way up it has one more, and each also reads a counterpart. Blocks of their own halve and
    double the array between levels. Every axis of space must be divisible by 2^(levels - 1), or `pad` is to make it so.
    The output starts at zero.

    Arguments:
        shape: Shape of one example: (length, channels), (height, width, channels) or (depth, height, width, channels).
        width: Number of channels at the finest level, before its multiplier.
        multipliers: Number of channels at each level, as a multiple of the width, the finest first.
        blocks: Number of residual blocks at each level on the way down.
        attention: Levels with attention, named by the size of their first axis. All their blocks attend but those that
            change the level; at the lowest level one always does.
        outputs: Number of outputs of each entry, one after the other along the last axis; 2 for
            `sgm.model.WithVariance`.
        frequencies: Number of frequencies of the `waves` of u that join it, for densities of fine structure.
        longest_wave: Length of the longest wave; each further one is half as long. With `longest_wave=2` the ninth
            is 2 / 256 long, the distance of two grey levels of 8 bits, where the prediction calls the network on u
            itself, as `Velocity()` does.
        periodic: Whether space is a torus: convolutions and resizing go on at the other side, and a shift of the input
            by a multiple of 2^(levels - 1) shifts the output.
        rotary: Whether attention knows how far apart two positions are, by rotary positions.
        pad: Whether an axis of another size is padded with zeros inside, and the output cropped.
        dropout: Probability with which a feature inside a block is dropped in training.
        conditioning: What the network is conditioned on; an image joins the input as channels.
        precision: Precision in which the blocks compute; parameters, embedding and output keep their own.
        remat: Whether to compute each block's activations again for its gradient: less memory, more time.
        key: Key of the initial weights.

    Raises:
        TypeError: for a number of channels or blocks that is no integer.
        ValueError: for sizes that the levels cannot halve, for `pad` on a torus, and for `rotary` with few channels.

    Example:
        >>> network = UNet((100, 3), 32, (1, 2, 2), pad=True, key=jax.random.key(0))  # signals of three channels

    Reference: Song et al. 2021 (arXiv:2011.13456, appendix H); Dhariwal and Nichol 2021 (arXiv:2105.05233). After the
    DDPM++ of Karras et al. 2022 (arXiv:2206.00364, table 7) for CIFAR-10 is `UNet((32, 32, 3), 128, (2, 2, 2), 4,
    attention=(16,))`.
    """

    embedding: Embedding
    inlet: Convolution
    down: list[ResidualBlock]
    middle: list[ResidualBlock]
    up: list[ResidualBlock]
    norm: GroupNorm
    outlet: Convolution
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    multipliers: tuple[int, ...] = eqx.field(static=True)
    blocks: int = eqx.field(static=True)
    attention: tuple[int, ...] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    frequencies: int = eqx.field(static=True)
    longest_wave: float = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    rotary: bool = eqx.field(static=True)
    pad: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 2,
        *,
        attention: tuple[int, ...] = (),
        outputs: int = 1,
        frequencies: int = 0,
        longest_wave: float = LONGEST_WAVE,
        periodic: bool = False,
        rotary: bool = False,
        pad: bool = False,
        dropout: float = 0.0,
        conditioning: Conditioning = Conditioning(),
        precision: Precision = "float32",
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        check_options("UNet", dropout, precision, width=width, blocks=blocks, outputs=outputs)
        check_waves("UNet", frequencies, longest_wave)
        check_instance("UNet", "multipliers", multipliers, Sequence, "(1, 2, 2)")
        check_count("UNet", "len(multipliers)", len(multipliers))
        for level, multiplier in enumerate(multipliers):
            check_count("UNet", f"multipliers[{level}]", multiplier)
        check_space("UNet", shape)
        if pad and periodic:
            raise ValueError("UNet: pad and periodic are True, but a torus has no end to pad; leave one of them out.")
        self.pad, self.periodic, self.multipliers = pad, periodic, tuple(multipliers)
        heights = _heights(self._padded("UNet", shape), len(multipliers), attention)
        conditioning.check_space("UNet", len(shape))
        space = {"rank": len(shape) - 1, "periodic": periodic}
        keys = key_stream(key)
        channels = width
        skips = [channels]

        def block(inputs, level, resample=None, attends=False):
            options = {"rotary": rotary, "resample": resample, "attends": attends, "key": next(keys)} | space
            return ResidualBlock(inputs, width * multipliers[level], 4 * width, dropout, **options)

        self.embedding = Embedding(4 * width, conditioning, key=next(keys))
        image_channels = conditioning.image[-1] if conditioning.image else 0
        self.inlet = Convolution((1 + 2 * frequencies) * shape[-1] + image_channels, channels, key=next(keys), **space)
        self.down, self.up = [], []
        for level, height in enumerate(heights):
            for resample in ([halve] if level > 0 else []) + [None] * blocks:
                self.down.append(block(channels, level, resample, not resample and height in attention))
                channels = width * multipliers[level]
                skips.append(channels)
        lowest = len(heights) - 1
        self.middle = [block(channels, lowest, attends=True), block(channels, lowest)]
        for level, height in reversed(list(enumerate(heights))):
            for resample in ([double] if level < lowest else []) + [None] * (blocks + 1):
                read = 0 if resample else skips.pop()
                self.up.append(block(channels + read, level, resample, not resample and height in attention))
                channels = width * multipliers[level]
        self.norm = GroupNorm(channels)
        self.outlet = zeros_like(Convolution(channels, outputs * shape[-1], key=next(keys), **space))
        self.shape, self.width, self.blocks, self.attention = tuple(shape), width, blocks, tuple(attention)
        self.outputs, self.frequencies, self.longest_wave = outputs, frequencies, longest_wave
        self.rotary, self.dropout, self.precision, self.remat = rotary, dropout, precision, remat

    @property
    def conditioning(self) -> Conditioning:
        """What the network is conditioned on."""
        return self.embedding.conditioning

    def __call__(self, level: Float[Array, ""], u: Space, cond=None, key: PRNGKeyArray | None = None) -> Outputs:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        check_input("UNet", u, self.shape)
        self._padded("UNet", u.shape)
        keys = key_stream(key)
        embedded = to_precision(self.embedding(level, cond), self.precision)

        def apply(block, hidden):
            return (eqx.filter_checkpoint(block) if self.remat else block)(hidden, embedded, next(keys))

        wavy = jnp.moveaxis(waves(u, level, self.frequencies, self.longest_wave), (0, 1), (-2, -1)).reshape(
            *u.shape[:-1], -1
        )
        joined = join_image(jnp.concatenate([u, wavy], axis=-1), self.embedding.image(cond), self.periodic)
        hidden = self.inlet(to_precision(padded_to(joined, self._divisor) if self.pad else joined, self.precision))
        skips = [hidden]
        for block in self.down:
            hidden = apply(block, hidden)
            skips.append(hidden)
        for block in self.middle:
            hidden = apply(block, hidden)
        for block in self.up:
            hidden = apply(block, hidden if block.resample else jnp.concatenate([hidden, skips.pop()], axis=-1))
        return cropped_to(self.outlet(activated(self.norm, hidden)), u.shape[:-1]).astype(u.dtype)

    @property
    def _divisor(self):
        return 2 ** (len(self.multipliers) - 1)

    def _padded(self, call, shape):
        """The shape inside; raise where the levels cannot halve it."""
        if not self.pad:
            remedy = "resize the data or use fewer levels"
            check_divisible(call, shape, self._divisor, remedy if self.periodic else f"{remedy}, or pass pad=True")
        return (*(size + -size % self._divisor for size in shape[:-1]), shape[-1])


def _scaled(layer):
    """The layer whose outputs are scaled by that of its parameters.

    Were the sum of the branches scaled, XLA's CPU backend would find its gradient, a sum over all later blocks, again
    for every block before it.
    """
    return jax.tree.map(lambda leaf: _SKIP_SCALE * leaf, layer)


def _heights(shape, levels, attention):
    """The height of each level; raise unless attention names some of them."""
    heights = [shape[0] // 2**level for level in range(levels)]
    for height in attention:
        if height not in heights:
            raise ValueError(f"UNet: attention = {attention}, but the levels have the heights {heights}; pass those.")
    return heights
