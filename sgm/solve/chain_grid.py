"""Where a sampler steps along a chain: its own integer times k, decreasing.

Names are those of Lin et al. 2023 (arXiv:2305.08891, table 2), whose t is k - 1. A grid need not reach k = 1: the path
is then denoised at its last time.
"""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sgm.checks import check_concrete, check_count
from sgm.sde.base import AbstractSDE
from sgm.sde.chain import DiscreteChain
from sgm.solve.grid import AbstractGrid, LogSNRGrid


class AbstractChainGrid(AbstractGrid):
    """Integer times of a chain."""

    @abstractmethod
    def numbers(self, chain: DiscreteChain, last: int, steps: int) -> Int[np.ndarray, "{steps}+1"]:
        """Decreasing times k of `steps + 1` levels, for a process that ends at `last`; ValueError for too many."""

    def levels(self, sde, steps):
        return sde.level(jnp.asarray(self._numbers(sde, steps), jnp.result_type(float)))

    def process(self, sde, steps):
        numbers = self._numbers(sde, steps)
        first, last = float(numbers[-1]), float(numbers[0])
        if (sde.t0, sde.t1) == (first, last):
            return sde
        return eqx.tree_at(lambda chain: (chain.t0, chain.t1), sde, (first, last))

    def _numbers(self, sde: AbstractSDE, steps: int):
        name = type(self).__name__
        if not isinstance(sde, DiscreteChain):
            raise ValueError(f"{name}: the process is a {type(sde).__name__}; pass a DiscreteChain or another grid.")
        check_concrete(name, t0=sde.t0, t1=sde.t1)
        last = float(sde.t1)  # Less than the chain's steps, where a sample starts at a noised example.
        if last != round(last):
            raise ValueError(f"{name}: the process ends at k = {last}; pass a whole k, or a grid of any time.")
        return self.numbers(sde, round(last), steps)


class ChainGrid(AbstractChainGrid):
    """From the last k to 1, evenly and rounded: `chain.steps - 1` steps take all of them.

    Arguments:
        early_end: Whether the grid of steps + 1 steps is taken and its last step left out, so that the path is denoised
            before it comes to k = 1.

    Example:
        >>> ChainGrid().numbers(sgm.DiscreteChain(), 1000, 3)
        array([1000,  667,  334,    1])
        >>> method = sgm.DDIM(49, grid=ChainGrid())

    Reference: Nichol and Dhariwal 2021 (arXiv:2102.09672, section 4); "linspace" of diffusers.
    """

    early_end: bool = eqx.field(static=True, default=False)

    def numbers(self, chain, last, steps):
        count = steps + self.early_end
        _check_steps("ChainGrid", steps, last - 1 - self.early_end, last)
        # Of halves, those of k - 1 go to the even ones, as in diffusers.
        return 1 + np.rint(np.linspace(0, last - 1, count + 1)).astype(int)[::-1][: steps + 1]


class LeadingGrid(AbstractChainGrid):
    """k = 1 + offset and each r-th from there, with r = floor(N / (steps + 1)): they do not reach the chain's end.

    Arguments:
        offset: First k, less 1.
        early_end: Whether the grid of steps + 1 steps is taken and its last step left out.

    Raises:
        TypeError: for an offset that is not whole.
        ValueError: for an offset below 0.

    Example:
        >>> LeadingGrid().numbers(sgm.DiscreteChain(), 1000, 3)
        array([751, 501, 251,   1])
        >>> method = sgm.DDIM(49, grid=LeadingGrid(offset=1))

    Reference: Song et al. 2021 (DDIM, arXiv:2010.02502); "leading" of diffusers.
    """

    offset: int = eqx.field(static=True, default=0)
    early_end: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_count("LeadingGrid", "offset", self.offset, 0)

    def numbers(self, chain, last, steps):
        count = steps + 1 + self.early_end
        stride = chain.steps // count
        numbers = 1 + self.offset + stride * np.arange(self.early_end, count)[::-1]
        if stride == 0 or numbers[0] > chain.steps:
            raise ValueError(
                f"LeadingGrid: steps = {steps} with offset = {self.offset} begin at k = {numbers[0]}, but the chain "
                f"has {chain.steps} steps; pass fewer steps, or offset = 0."
            )
        if last not in (chain.steps, numbers[0]):
            raise ValueError(
                f"LeadingGrid: steps = {steps} begin at k = {numbers[0]}, but the process ends at {last}; pass "
                "ChainGrid() or TrailingGrid(), which begin where the process ends."
            )
        return numbers


class TrailingGrid(AbstractChainGrid):
    """From the last k down in even strides, rounded, to one stride above 0.

    Example:
        >>> TrailingGrid().numbers(sgm.DiscreteChain(), 1000, 3)
        array([1000,  750,  500,  250])
        >>> method = sgm.EDMHeun(20, grid=TrailingGrid())

    Reference: Lin et al. 2023 (arXiv:2305.08891, section 3.3); "trailing".
    """

    def numbers(self, chain, last, steps):
        _check_steps("TrailingGrid", steps, last - 1, last)
        return np.rint(last - last / (steps + 1) * np.arange(steps + 1)).astype(int)


class WithinGrid(AbstractGrid):
    """Steps placed by the grid `inner`, between the first and the last level of the grid `ends`.

    Arguments:
        ends: Grid whose first and last level are taken.
        inner: Grid of the levels between them.

    Example:
        >>> method = sgm.DDIM(19, grid=WithinGrid(TrailingGrid(), KarrasGrid()))
        >>> process = method.process(sgm.DiscreteChain())
        >>> process.t1, process.t0  # the ends of 19 trailing steps
        (1000.0, 50.0)
    """

    ends: AbstractGrid = TrailingGrid()
    inner: AbstractGrid = LogSNRGrid()

    def levels(self, sde, steps):
        return self.inner.levels(self.ends.process(sde, steps), steps)

    def process(self, sde, steps):
        return self.ends.process(sde, steps)


def _check_steps(name: str, steps: int, most: int, last: int) -> None:
    if steps > most:
        raise ValueError(f"{name}: steps = {steps}, but from k = {last} to 1 there are {most}; pass no more.")
