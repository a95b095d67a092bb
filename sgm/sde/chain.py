"""The discrete chain, as a process in continuous time."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import check_time
from sgm.sde.base import AbstractSDE
from sgm.sde.betas import AbstractBetas, LinearBetas, TableBetas
from sgm.sde.schedules import PiecewiseConstant
from sgm.sde.vp import VP, AbstractVP
from sgm.types import Number


class DiscreteChain(AbstractVP):
    """The chain x_k = sqrt(1 - beta_k) x_(k-1) + sqrt(beta_k) noise, k = 1 ... N, and a process between its steps.

    It is the variance-preserving process of rate -log(1 - beta_k) on step k, so that alpha at k is the square root of
    the product of 1 - beta_1 ... 1 - beta_k. Its time is k: t0 = 1, where all continuous tools stop, and t1 = N; x_0
    is reached from x_1 by the chain's own last step alone.

    Arguments:
        betas: Table of betas, such as `sgm.sde.LinearBetas(1000)`, or an array of shape (steps,), which is kept as
            `sgm.sde.TableBetas`. They are never trained, and lie between 0 and 1. The last may be 1, so that nothing
            is left of the data at N.

    Raises:
        ValueError: where a beta lies elsewhere, or there are fewer than two.

    Example:
        >>> chain = DiscreteChain(LinearBetas(1000))
        >>> chain.t0, chain.t1
        (1.0, 1000.0)

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (DDPM, arXiv:2006.11239).
    """

    betas: AbstractBetas
    schedule: PiecewiseConstant = eqx.field(repr=False)  # It follows from the betas.
    t0: Number
    t1: Number

    def __init__(self, betas: AbstractBetas | Float[np.ndarray | Array, "..."] = LinearBetas()):
        if not isinstance(betas, AbstractBetas):
            if np.ndim(betas) != 1:
                raise ValueError(f"DiscreteChain: betas of shape {np.shape(betas)}; pass two or more along one axis.")
            betas = TableBetas(betas)
        self.betas = betas
        self.schedule = PiecewiseConstant(_rates(betas.values), end=float(len(betas.values)))
        self.t0, self.t1 = 1.0, float(len(betas.values))

    @classmethod
    def at_times(cls, sde: AbstractSDE, times: Float[np.ndarray | Array, " steps"]) -> "DiscreteChain":
        """The chain whose noise levels at k = 1 ... N are those of a process at N increasing `times`."""
        check_time("DiscreteChain.at_times", sde, times)
        with jax.enable_x64(True):  # Single precision has no digits left for the small differences of levels.
            levels = np.asarray(sde.level(np.asarray(times, np.float64)))
        rates = np.diff(np.logaddexp(0, 2 * levels), prepend=0.0)
        if not np.all(rates > 0):
            bad = int(np.flatnonzero(~(rates > 0))[0])
            raise ValueError(
                f"DiscreteChain.at_times: the noise does not grow at times[{bad}] = {times[bad]}; pass increasing ones."
            )
        return cls(-np.expm1(-rates))

    @property
    def steps(self) -> int:
        """N."""
        return self.schedule.steps

    def continuous(self) -> VP:
        """The same process on the time k/N, from 1/N to 1."""
        schedule = PiecewiseConstant(np.asarray(self.schedule.increments), end=1.0)
        return VP(schedule=schedule, t0=1 / self.steps, t1=1.0)


def _rates(betas):
    """-log(1 - beta) of each step."""
    if len(betas) < 2:
        raise ValueError(f"DiscreteChain: betas of shape {betas.shape}; pass two or more along one axis.")
    inside = (betas > 0) & (betas < 1)
    inside[-1] |= betas[-1] == 1
    if not np.all(inside):
        bad = int(np.flatnonzero(~inside)[0])
        raise ValueError(
            f"DiscreteChain: beta_{bad + 1} = {betas[bad]}; pass betas between 0 and 1, of which the last may be 1."
        )
    with np.errstate(divide="ignore"):  # of a last beta of 1
        return -np.log1p(-betas)
