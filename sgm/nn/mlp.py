"""A residual perceptron for vectors."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.conditioning import Conditioning, Embedding
from sgm.nn.layers import (
    Linear,
    Precision,
    check_options,
    check_shape,
    dropout,
    key_stream,
    layer_norm,
    modulate,
    to_precision,
    zeros_like,
)
from sgm.nn.network import AbstractNetwork
from sgm.nn.waves import LONGEST_WAVE, check_waves, waves


class MLPBlock(eqx.Module):
    """x + second(dropout(silu(first(silu(modulated norm of x))))), with `second` zero at the start."""

    modulation: Linear
    first: Linear
    second: Linear
    rate: float = eqx.field(static=True)

    def __init__(self, width: int, embedding: int, rate: float, *, key: PRNGKeyArray):
        key_modulation, key_first, key_second = jr.split(key, 3)
        self.modulation = Linear(embedding, 2 * width, key=key_modulation)
        self.first = Linear(width, width, key=key_first)
        self.second = zeros_like(Linear(width, width, key=key_second))
        self.rate = rate

    def __call__(self, x, embedded, key):
        hidden = jax.nn.silu(modulate(layer_norm(x), *jnp.split(self.modulation(embedded), 2)))
        hidden = dropout(jax.nn.silu(self.first(hidden)), self.rate, key)
        return x + self.second(hidden)


class MLP(AbstractNetwork):
    """A residual multilayer perceptron for examples of any `shape`, which it flattens.

    Its residual blocks are scaled and shifted by the embedded noise level and condition; the condition's parameters,
    standardised, and its image join the input. The output starts at zero.

    Arguments:
        shape: Shape of one example.
        width: Number of units of a layer.
        depth: Number of residual blocks.
        outputs: Number of outputs of each entry, one after the other along the last axis; 2 for
            `sgm.model.WithVariance`.
        frequencies: Number of frequencies of the `waves` that join the input, for densities of sharp edges.
        longest_wave: Length of the longest wave; each further one is half as long.
        dropout: Probability with which a unit inside a block is dropped in training.
        conditioning: What the network is conditioned on.
        precision: Precision in which the blocks compute; parameters, embedding and output keep their own.
        remat: Whether to compute each block's activations again for its gradient: less memory, more time.
        key: Key of the initial weights.

    Raises:
        TypeError: for a width, a depth, outputs or frequencies that are no integers.
        ValueError: for sizes below 1, a dropout outside [0, 1), and waves of no length.

    Example:
        >>> network = MLP((2,), width=64, depth=2, key=jr.key(0))
        >>> network(jnp.asarray(0.0), jnp.ones(2))  # zero until it is trained
        Array([0., 0.], dtype=float32)
        >>> model = sgm.ScoreModel(network, shape=(2,))
    """

    embedding: Embedding
    inlet: Linear
    blocks: list[MLPBlock]
    outlet: Linear
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    frequencies: int = eqx.field(static=True)
    longest_wave: float = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 256,
        depth: int = 4,
        *,
        outputs: int = 1,
        frequencies: int = 0,
        longest_wave: float = LONGEST_WAVE,
        dropout: float = 0.0,
        conditioning: Conditioning = Conditioning(),
        precision: Precision = "float32",
        remat: bool = False,
        key: PRNGKeyArray,
    ):
        check_shape("MLP", shape)
        check_options("MLP", dropout, precision, width=width, depth=depth, outputs=outputs)
        check_waves("MLP", frequencies, longest_wave)
        key_embedding, key_inlet, key_outlet, *keys = jr.split(key, 3 + depth)
        features, image = math.prod(shape), math.prod(conditioning.image or (0,))
        self.embedding = Embedding(max(8, width // 4), conditioning, key=key_embedding)
        joined = (conditioning.params or 0) + image
        self.inlet = Linear((1 + 2 * frequencies) * features + joined, width, key=key_inlet)
        self.blocks = [MLPBlock(width, max(8, width // 4), dropout, key=block_key) for block_key in keys]
        self.outlet = zeros_like(Linear(width, outputs * features, key=key_outlet))
        self.shape, self.width, self.depth, self.outputs = tuple(shape), width, depth, outputs
        self.frequencies, self.longest_wave, self.dropout = frequencies, longest_wave, dropout
        self.precision, self.remat = precision, remat

    @property
    def conditioning(self) -> Conditioning:
        """What the network is conditioned on."""
        return self.embedding.conditioning

    def __call__(
        self, level: Float[Array, ""], u: Float[Array, "*shape"], cond=None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        embedded = to_precision(self.embedding(level, cond), self.precision)
        joined = self.embedding.standardised(cond), self.embedding.image(cond)
        inputs = [u.reshape(-1), waves(u, level, self.frequencies, self.longest_wave).reshape(-1)]
        inputs += [part.reshape(-1).astype(u.dtype) for part in joined if part is not None]
        hidden = self.inlet(to_precision(jnp.concatenate(inputs), self.precision))
        for block, block_key in zip(self.blocks, key_stream(key), strict=False):
            hidden = (eqx.filter_checkpoint(block) if self.remat else block)(hidden, embedded, block_key)
        return self.outlet(jax.nn.silu(layer_norm(hidden))).reshape(*u.shape[:-1], -1).astype(u.dtype)
