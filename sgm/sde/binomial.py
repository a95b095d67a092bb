"""The chain of bits that are flipped towards a coin."""

import equinox as eqx
import numpy as np

from sgm.checks import check_concrete
from sgm.sde.betas import AbstractBetas, HarmonicBetas
from sgm.sde.categorical import AbstractCategoricalChain


class BinomialChain(AbstractCategoricalChain):
    """Bits, of which step k draws each afresh with probability beta_k: 1 with probability p, else 0.

    Arguments:
        betas: Table of betas between 0 and 1, of which the last may be 1. They are never trained.
        p: Probability of a 1 at the end of the chain.

    Raises:
        TypeError: for betas of another type.
        ValueError: for betas or a p out of range.

    Example:
        >>> chain = BinomialChain(HarmonicBetas(2000), p=0.2)
        >>> round(float(chain.transition(0, 1)[0, 1]), 6)  # the probability that a 0 is a 1 after one step
        0.0001

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, table App.1 and appendix D.1.2).
    """

    betas: AbstractBetas
    p: float = eqx.field(static=True)

    def __init__(self, betas: AbstractBetas = HarmonicBetas(1000), p: float = 0.5):
        self.betas, self.p = betas, p

    def __check_init__(self):
        check_concrete("BinomialChain", p=self.p)
        if not 0 < self.p < 1:
            raise ValueError(f"BinomialChain: p = {self.p}; pass 0 < p < 1, the share of ones in noise.")

    @property
    def categories(self):
        return 2

    @property
    def target(self):
        return np.asarray([1 - self.p, self.p])
