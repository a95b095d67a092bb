"""The chain that masks categories."""

import equinox as eqx
import numpy as np

from sgm.checks import check_count
from sgm.sde.betas import AbstractBetas, HarmonicBetas
from sgm.sde.categorical import AbstractCategoricalChain


class AbsorbingChain(AbstractCategoricalChain):
    """Categories, of which step k masks each with probability beta_k. The mask is the state `categories`, and stays.

    Backwards, an entry that is not masked is that of x_0. Its bound is a weighted sum of the losses of masked language
    models.

    Arguments:
        categories: Number of categories of an entry.
        betas: Table of betas between 0 and 1, of which the last is 1: all entries end masked. They are never trained.

    Raises:
        TypeError: for betas of another type, and a number of categories that is not whole.
        ValueError: for betas out of range, a last beta below 1, and fewer than two categories.

    Example:
        >>> chain = AbsorbingChain(27)
        >>> chain.states  # the categories, and the mask
        28

    Reference: Austin et al. 2021 (D3PM, arXiv:2107.03006, appendix A.2.2 and A.3).
    """

    categories: int = eqx.field(static=True)
    betas: AbstractBetas

    def __init__(self, categories: int, betas: AbstractBetas = HarmonicBetas(1000)):
        self.categories, self.betas = categories, betas

    def __check_init__(self):
        check_count("AbsorbingChain", "categories", self.categories, 2)

    @property
    def target(self):
        return np.eye(self.categories + 1)[-1]
