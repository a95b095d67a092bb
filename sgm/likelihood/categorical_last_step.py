"""The last step of the bound of a chain of categories, log p(x_0 | x_1)."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.sde.categorical import AbstractCategoricalChain, Categories


class AbstractCategoricalReconstruction(eqx.Module):
    """What the last step, from x_1 to x_0, counts in the bound."""

    @abstractmethod
    def log_prob(self, chain: AbstractCategoricalChain, x0: Categories, by_model: Float[Array, ""]) -> Float[Array, ""]:
        """The last step's term of one example, in nats.

        Arguments:
            chain: Chain.
            x0: The example.
            by_model: log p(x_0 | x_1) of the model.
        """


class Modelled(AbstractCategoricalReconstruction):
    """log p(x_0 | x_1) of the model: the last step is that by which the model draws x_0.

    Example:
        >>> metric = sgm.evaluation.CategoricalBound(reconstruction=Modelled())
    """

    def log_prob(self, chain, x0, by_model):
        return by_model


class ForwardEntropy(AbstractCategoricalReconstruction):
    """-H(x_1 | x_0) of the chain, whatever the model: what Sohl-Dickstein et al. 2015 count.

    It stands for log p(x_0 | x_1) of the model, so that the bound holds where that is above it on average, which the
    `reconstruction` of `Modelled` tells.

    Example:
        >>> metric = sgm.evaluation.CategoricalBound(reconstruction=ForwardEntropy())
        >>> chain = sgm.BinomialChain(HarmonicBetas(4))
        >>> round(float(chain.entropy(jnp.asarray(1), jnp.asarray([0, 1, 1]))), 3)  # three bits, each flipped with 1/8
        1.13

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, eq. 14 and appendix B.2).
    """

    def log_prob(self, chain, x0, by_model):
        return -chain.entropy(jnp.asarray(1), x0)
