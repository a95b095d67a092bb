"""The chain that replaces categories by any others."""

import equinox as eqx
import numpy as np

from sgm.checks import check_count
from sgm.sde.betas import AbstractBetas, CosineBetas
from sgm.sde.categorical import AbstractCategoricalChain


class UniformChain(AbstractCategoricalChain):
    """Categories, of which step k draws each afresh with probability beta_k, all of them equally likely.

    Arguments:
        categories: Number of categories of an entry.
        betas: Table of betas between 0 and 1, of which the last may be 1. They are never trained.

    Raises:
        TypeError: for betas of another type, and a number of categories that is not whole.
        ValueError: for betas out of range, and fewer than two categories.

    Example:
        >>> chain = UniformChain(27, HarmonicBetas(100))
        >>> chain.prior.sample(key, (20,)).shape  # twenty entries of noise
        (20,)

    Reference: Hoogeboom et al. 2021 (arXiv:2102.05379); Austin et al. 2021 (D3PM, arXiv:2107.03006, appendix A.2.1).
    """

    categories: int = eqx.field(static=True)
    betas: AbstractBetas

    def __init__(self, categories: int, betas: AbstractBetas = CosineBetas(1000)):
        self.categories, self.betas = categories, betas

    def __check_init__(self):
        check_count("UniformChain", "categories", self.categories, 2)

    @property
    def target(self):
        return np.full(self.categories, 1 / self.categories)
