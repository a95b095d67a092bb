"""At which of its steps a chain of categories is looked at."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from sgm.checks import check_concrete
from sgm.sde.categorical import AbstractCategoricalChain


class AbstractStepSampling(eqx.Module):
    """A distribution of a chain's steps, by which a sum over all of them is estimated from a few."""

    @abstractmethod
    def probabilities(self, chain: AbstractCategoricalChain) -> Float64[np.ndarray, " steps"]:
        """The probability of each of the steps 1 ... N."""


class UniformSteps(AbstractStepSampling):
    """All steps equally often.

    Example:
        >>> loss = sgm.CategoricalLoss(times=UniformSteps())
        >>> loss.times.probabilities(sgm.UniformChain(27, HarmonicBetas(4)))
        array([0.25, 0.25, 0.25, 0.25])

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Austin et al. 2021 (D3PM, arXiv:2107.03006).
    """

    def probabilities(self, chain):
        return np.full(chain.steps, 1 / chain.steps)


class InformationSteps(AbstractStepSampling):
    """Steps in proportion to the information on x_0 that they take (see `AbstractCategoricalChain.information`).

    For entries that are independent of one another and have all categories as often, every draw then counts as much. An
    equal share of all steps keeps the weight of any of them bounded.

    Arguments:
        share: Share of draws that are drawn from all steps alike, between 0 and 1.

    Raises:
        ValueError: unless 0 < share <= 1, and for a share that is traced.

    Example:
        >>> metric = sgm.evaluation.CategoricalBound(steps=100, times=InformationSteps())
        >>> metric.times.probabilities(sgm.UniformChain(27, HarmonicBetas(4))).round(2)
        array([0.39, 0.28, 0.21, 0.12])

    Reference: Nichol and Dhariwal 2021 (arXiv:2102.09672, section 3.3), who learn such a distribution.
    """

    share: float = eqx.field(static=True, default=0.1)

    def __check_init__(self):
        check_concrete("InformationSteps", share=self.share)
        if not 0 < self.share <= 1:
            raise ValueError(f"InformationSteps: share = {self.share}; pass 0 < share <= 1.")

    def probabilities(self, chain):
        taken = chain.information
        return (1 - self.share) * taken / np.sum(taken) + self.share / chain.steps
