"""The exact model of a Markov chain of categories along a sequence."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import check_array, check_instance, is_traced
from sgm.model.categorical import AbstractExactCategoricalModel
from sgm.sde.categorical import LOG_ZERO, AbstractCategoricalChain


class MarkovSequence(AbstractExactCategoricalModel):
    """The exact p(x_0 | x_t) of each entry of a sequence, each entry of which depends on the one before.

    It is found by one pass forwards and one backwards. No factorised model has a higher bound.

    Arguments:
        chain: Chain of the noise.
        shape: Shape of one example, whose entries are the sequence in row-major order.
        initial: Probability of each category of the first entry.
        transitions: Probability of each category after each other one; a row for each category of the entry before.

    Raises:
        ValueError: for probabilities of another shape than the chain's categories, or that do not sum to 1.

    Example:
        >>> model = MarkovSequence(UniformChain(2), (20,), np.asarray([0.5, 0.5]), np.asarray([[0.9, 0.1], [0.1, 0.9]]))

    Reference: Rabiner 1989 (doi:10.1109/5.18626, section III), the forward-backward procedure.
    """

    chain: AbstractCategoricalChain
    shape: tuple[int, ...] = eqx.field(static=True)
    initial: Float[Array, " categories"]
    transitions: Float[Array, "categories categories"]

    def __init__(
        self,
        chain: AbstractCategoricalChain,
        shape: tuple[int, ...],
        initial: Float[Array | np.ndarray, " categories"],
        transitions: Float[Array | np.ndarray, "categories categories"],
    ):
        check_instance("MarkovSequence", "chain", chain, AbstractCategoricalChain, "sgm.UniformChain(27)")
        count = chain.categories
        for name, part, wanted in (("initial", initial, (count,)), ("transitions", transitions, (count, count))):
            check_array("MarkovSequence", name, part)
            if is_traced(part):
                continue
            if part.shape != wanted or np.min(part) < 0 or np.max(np.abs(np.sum(part, axis=-1) - 1)) > 1e-5:
                raise ValueError(
                    f"MarkovSequence: {name} has shape {part.shape} and sums {np.sum(part, axis=-1)}; pass "
                    f"probabilities of shape {wanted} that sum to 1 along the last axis."
                )
        self.chain, self.shape = chain, tuple(shape)
        number = jnp.result_type(float)
        self.initial, self.transitions = jnp.asarray(initial, number), jnp.asarray(transitions, number)

    def predict(self, level, x, cond=None, key=None):
        likelihoods = self.chain.log_likelihood(level, x.reshape(-1))
        initial, transitions = (jnp.maximum(jnp.log(part), LOG_ZERO) for part in (self.initial, self.transitions))

        def forwards(before, likelihood):
            after = _level_out(jax.nn.logsumexp((before + likelihood)[:, None] + transitions, axis=0))
            return after, before

        def backwards(after, likelihood):
            before = _level_out(jax.nn.logsumexp(transitions + likelihood + after, axis=1))
            return before, after

        last = jnp.zeros_like(initial)
        _, before = jax.lax.scan(forwards, initial, likelihoods)
        _, after = jax.lax.scan(backwards, last, likelihoods, reverse=True)
        return _level_out(before + after).reshape(*self.shape, self.categories)

    def log_prob(self, x: Array) -> Float[Array, ""]:
        """The log-probability of one example, in nats."""
        entries = x.reshape(math.prod(self.shape))
        steps = jnp.log(self.transitions)[entries[:-1], entries[1:]]
        return jnp.log(self.initial)[entries[0]] + jnp.sum(steps)


def _level_out(logs):
    """The logarithms up to a number, so that they neither grow nor fall along the sequence."""
    return jnp.maximum(logs - jnp.max(logs, axis=-1, keepdims=True), LOG_ZERO)
