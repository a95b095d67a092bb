"""A transformer whose tokens are variables: the columns of a table, or parameters and observations together."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from sgm.nn.conditioning import Conditioning, Embedding
from sgm.nn.dit import stacked_blocks, through_blocks
from sgm.nn.layers import (
    Features,
    Linear,
    Precision,
    check_options,
    layer_norm,
    modulate,
    to_precision,
    zeros_like,
)
from sgm.nn.network import AbstractNetwork
from sgm.nn.stacked import Stacked
from sgm.nn.waves import LONGEST_WAVE, check_waves, waves
from sgm.random import normal


class Transformer(AbstractNetwork):
    """A transformer of vectors, each entry of which is a token: its identity, its value and whether it is observed.

    With `Conditioning(observed=...)` any entries can be observed (`Condition.observed`), so that one network has the
    joint distribution and every conditional of it. Entries that are nan in `u` are missing: no other entry attends to
    them. The blocks are those of a `DiT`, and the output starts at zero.

    Arguments:
        shape: Shape of one example, (variables,).
        width: Number of features of a token.
        depth: Number of blocks.
        heads: Number of attention heads, which must divide the width.
        outputs: Number of outputs of each entry, one after the other along the last axis; 2 for
            `sgm.model.WithVariance`.
        frequencies: Number of frequencies of the waves of a value that join it, as those of an `MLP`, for densities of
            sharp edges.
        longest_wave: Length of the longest wave; each further one is half as long.
        dropout: Probability with which a feature that a block adds is dropped in training.
        conditioning: What the network is conditioned on; not on an image.
        precision: Precision in which the blocks compute; parameters, embedding and output keep their own.
        remat: Whether to compute each block's activations again for its gradient: less memory, more time.
        key: Key of the initial weights.

    Raises:
        TypeError: for a width, a depth, heads, outputs or frequencies that are no integers.
        ValueError: for examples that are no vectors, a width that the heads do not divide, an image, or another number
            of entries to observe.

    Example:
        >>> network = Transformer((5,), conditioning=Conditioning(observed=5), key=jax.random.key(0))

    Reference: Gloeckler et al. 2024 (Simformer, arXiv:2404.09636); Peebles and Xie 2023 (adaLN-Zero, arXiv:2212.09748).
    """

    embedding: Embedding
    identities: Float[Array, "variables width"]
    inlet: Linear
    blocks: Stacked
    modulation: Linear
    outlet: Linear
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    frequencies: int = eqx.field(static=True)
    longest_wave: float = eqx.field(static=True)
    dropout: float = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    remat: bool = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 96,
        depth: int = 4,
        heads: int = 4,
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
        check_options("Transformer", dropout, precision, width=width, depth=depth, heads=heads, outputs=outputs)
        check_waves("Transformer", frequencies, longest_wave)
        _check_vector(shape, shape)
        if width % heads:
            raise ValueError(f"Transformer: width = {width} must be divisible by heads = {heads}; pass such a width.")
        if conditioning.image is not None or conditioning.observed not in (None, shape[0]):
            raise ValueError(
                f"Transformer: the conditioning has image = {conditioning.image} and observed = "
                f"{conditioning.observed} for examples of {shape[0]} variables; leave the image out, and pass "
                f"observed={shape[0]}, or None."
            )
        key_embedding, key_identities, key_inlet, key_outlet, key_blocks = jr.split(key, 5)
        self.embedding = Embedding(width, conditioning, observes=True, key=key_embedding)
        self.identities = normal(key_identities, (shape[0], width))
        self.inlet = Linear(2 + 2 * frequencies, width, key=key_inlet)
        self.blocks = stacked_blocks(depth, width, heads, dropout, key=key_blocks)
        self.modulation = zeros_like(Linear(width, 2 * width, key=key_outlet))
        self.outlet = zeros_like(Linear(width, outputs, key=key_outlet))
        self.shape, self.width, self.depth, self.heads = tuple(shape), width, depth, heads
        self.outputs, self.frequencies, self.longest_wave, self.dropout = outputs, frequencies, longest_wave, dropout
        self.precision, self.remat = precision, remat

    @property
    def conditioning(self) -> Conditioning:
        """What the network is conditioned on."""
        return self.embedding.conditioning

    @property
    def takes_missing(self) -> bool:
        return True

    def __call__(
        self,
        level: Float[Array, ""],
        u: Float[Array, " variables"],
        cond=None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " outputs"]:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`; a `key` switches dropout on.

        Entries of `cond.observed` are in the coordinates of x0, those of `u` without noise.
        """
        _check_vector(u.shape, self.shape)
        embedded = to_precision(self.embedding(level, cond), self.precision)
        observed = getattr(cond, "observed", None)
        known = jnp.zeros(u.shape, bool) if observed is None else ~jnp.isnan(observed)
        value = u if observed is None else jnp.where(known, observed.astype(u.dtype), u)
        missing = jnp.isnan(value)
        inputs = self._inputs(jnp.where(missing, 0, value), known, level)
        tokens = self.inlet(to_precision(inputs, self.precision)) + self.identities.astype(inputs.dtype)
        # Where all are missing, each may see the others: softmax needs one.
        seen = ~missing | jnp.all(missing)
        tokens = to_precision(tokens, self.precision)
        tokens = through_blocks(self.blocks, tokens, embedded, key, self.remat, None, seen)
        tokens = modulate(layer_norm(tokens), *jnp.split(self.modulation(embedded), 2))
        return self.outlet(tokens).T.reshape(-1).astype(u.dtype)

    def _inputs(
        self, value: Features, known: Bool[Array, " variables"], level: Float[Array, ""]
    ) -> Float[Array, "variables inputs"]:
        """Value of each entry, whether it is observed, and waves of the value, which has noise only if it is not."""
        levels = jnp.where(known, -jnp.inf, level).astype(value.dtype)
        wavy = jax.vmap(lambda value, level: waves(value, level, self.frequencies, self.longest_wave).reshape(-1))(
            value, levels
        )
        return jnp.concatenate([value[:, None], known[:, None].astype(value.dtype), wavy], axis=1)


def _check_vector(shape, own):
    if not isinstance(shape, tuple | list) or len(shape) != 1 or tuple(shape) != tuple(own) or shape[0] < 1:
        raise ValueError(
            f"Transformer: shape = {shape!r}; pass (variables,), the shape of a vector, or build a UNet or a DiT for "
            "signals, images and volumes."
        )
