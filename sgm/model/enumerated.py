"""The exact model of data that are one of a few known examples."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from sgm.checks import check_array, check_count, check_instance, is_traced
from sgm.model.categorical import AbstractExactCategoricalModel, check_categories
from sgm.sde.categorical import LOG_ZERO, AbstractCategoricalChain


class Enumerated(AbstractExactCategoricalModel):
    """The exact p(x_0 | x_t) of each entry, where x_0 is one of a few known examples, by Bayes' rule over all of them.

    No factorised model has a higher bound. It costs as many operations as the examples have entries, times their
    categories.

    Arguments:
        chain: Chain.
        examples: All examples that x_0 may be, integers along the first axis.
        probabilities: Probability of each, which sum to 1; by default all alike.

    Raises:
        ValueError: for examples that are no categories of the chain, and probabilities that are none.

    Example:
        >>> chain = sgm.BinomialChain(HarmonicBetas(20))
        >>> model = Enumerated(chain, jnp.asarray([[0, 1], [1, 0]]))
        >>> x = sgm.sample(chain, model, key, 8, method=sgm.CategoricalAncestral())  # nearly always one of the two
    """

    chain: AbstractCategoricalChain
    examples: Int[Array, "n *shape"]
    probabilities: Float[Array, " n"]

    def __init__(
        self,
        chain: AbstractCategoricalChain,
        examples: Integer[Array | np.ndarray, "n ..."],
        probabilities: Float[Array | np.ndarray, " n"] | None = None,
    ):
        check_instance("Enumerated", "chain", chain, AbstractCategoricalChain, "sgm.BinomialChain()")
        check_array("Enumerated", "examples", examples)
        check_categories("Enumerated", examples, tuple(examples.shape[1:]), chain.categories)
        n = check_count("Enumerated", "the number of examples", len(examples))
        shares = np.full(n, 1 / n) if probabilities is None else probabilities
        if not is_traced(shares):
            shares = np.asarray(shares, np.float64)
            if shares.shape != (n,) or np.any(shares < 0) or abs(float(np.sum(shares)) - 1) > 1e-5:
                raise ValueError(
                    f"Enumerated: probabilities of shape {shares.shape}, from {np.min(shares)}, sum to "
                    f"{np.sum(shares)}; pass {n} numbers that are not negative and sum to 1."
                )
        self.chain, self.examples = chain, jnp.asarray(examples, jnp.int32)
        self.probabilities = jnp.asarray(shares, jnp.result_type(float))

    @property
    def shape(self):
        return self.examples.shape[1:]

    def predict(self, level, x, cond=None, key=None):
        log_likelihood = self.chain.log_likelihood(level, x.reshape(-1))
        examples = self.examples.reshape(len(self.examples), -1)
        each = jnp.take_along_axis(log_likelihood[None], examples[..., None], axis=2)[..., 0]
        # The sum over all other entries, by no difference of two sums.
        others = _exclusive(each) + _exclusive(each[:, ::-1])[:, ::-1] + jnp.log(self.probabilities)[:, None]
        is_of = examples[..., None] == jnp.arange(self.categories)
        logits = jax.nn.logsumexp(jnp.where(is_of, others[..., None], 2 * LOG_ZERO * examples.shape[1]), axis=0)
        logits = logits - jnp.max(logits, axis=-1, keepdims=True)
        return jnp.maximum(logits, LOG_ZERO).reshape(*self.shape, self.categories)


def _exclusive(x):
    """Sums along the last axis of all before each entry."""
    return jnp.pad(jnp.cumsum(x, axis=1)[:, :-1], ((0, 0), (1, 0)))
