import math

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.layers import Embedding, check_sizes, condition_part, dropout, key_stream, modulate, zeros_like


class MLPBlock(eqx.Module):
    """x + second(dropout(silu(first(silu(modulated norm of x))))), with `second` zero at the start."""

    norm: eqx.nn.LayerNorm
    modulation: eqx.nn.Linear
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    rate: float = eqx.field(static=True)

    def __init__(self, width: int, embedding: int, rate: float, *, key: PRNGKeyArray):
        key_modulation, key_first, key_second = jr.split(key, 3)
        self.norm = eqx.nn.LayerNorm(width, use_weight=False, use_bias=False)
        self.modulation = eqx.nn.Linear(embedding, 2 * width, key=key_modulation)
        self.first = eqx.nn.Linear(width, width, key=key_first)
        self.second = zeros_like(eqx.nn.Linear(width, width, key=key_second))
        self.rate = rate

    def __call__(self, x, embedded, key):
        hidden = jax.nn.silu(modulate(self.norm(x), self.modulation(embedded)))
        hidden = dropout(jax.nn.silu(self.first(hidden)), self.rate, key)
        return x + self.second(hidden)


class MLP(eqx.Module):
    """A residual multilayer perceptron for examples of any `shape`, which it flattens.

    `depth` residual blocks of `width` units, each scaled and shifted by the embedded noise level and condition.
    `params` and `classes` are the sizes of the conditions it is built for. The output starts at zero.
    """

    embedding: Embedding
    inlet: eqx.nn.Linear
    blocks: list[MLPBlock]
    norm: eqx.nn.LayerNorm
    outlet: eqx.nn.Linear

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 256,
        depth: int = 4,
        *,
        dropout: float = 0.0,
        params: int | None = None,
        classes: int | None = None,
        key: PRNGKeyArray,
    ):
        check_sizes("MLP", dropout, width=width, depth=depth)
        key_embedding, key_inlet, key_outlet, *keys = jr.split(key, 3 + depth)
        features = math.prod(shape)
        self.embedding = Embedding(max(8, width // 4), params, classes, key=key_embedding)
        self.inlet = eqx.nn.Linear(features, width, key=key_inlet)
        self.blocks = [MLPBlock(width, max(8, width // 4), dropout, key=block_key) for block_key in keys]
        self.norm = eqx.nn.LayerNorm(width)
        self.outlet = zeros_like(eqx.nn.Linear(width, features, key=key_outlet))

    def __call__(
        self, level: Float[Array, ""], u: Float[Array, "*shape"], cond=None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*shape"]:
        """The output, of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on."""
        condition_part(cond, "image", expected=False)
        embedded = self.embedding(level, cond)
        hidden = self.inlet(u.reshape(-1))
        for block, block_key in zip(self.blocks, key_stream(key), strict=False):
            hidden = block(hidden, embedded, block_key)
        return self.outlet(jax.nn.silu(self.norm(hidden))).reshape(u.shape)
