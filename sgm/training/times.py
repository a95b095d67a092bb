"""At which times training looks."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from sgm.checks import check_positive
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL
from sgm.types import Number

Times = Float[Array, " n"]


class AbstractTimeSampling(eqx.Module):
    """A density of times on [t0, t1]."""

    @abstractmethod
    def quantile(self, sde: AbstractSDE, probability: Times) -> Times:
        """The time below which `probability` of the mass lies."""

    @abstractmethod
    def density(self, sde: AbstractSDE, t: Times) -> Times:
        """The density at t, relative to the uniform one."""


class UniformTime(AbstractTimeSampling):
    """Uniform in t.

    Example:
        >>> UniformTime().quantile(sgm.VE(), jnp.asarray([0.0, 0.5, 1.0]))
        Array([0. , 0.5, 1. ], dtype=float32)
        >>> loss = sgm.Loss(times=UniformTime())
    """

    def quantile(self, sde, probability):
        return sde.t0 + (sde.t1 - sde.t0) * probability

    def density(self, sde, t):
        return jnp.ones_like(t)


class UniformLogSNR(AbstractTimeSampling):
    """Uniform in log_snr: the importance sampling of `LikelihoodWeighting`, whose weight over this density is constant.

    From a process that ends in pure noise, up to l = `LARGEST_LEVEL`.

    Example:
        >>> value = sgm.score_matching_loss(sde, model, x, key, weighting=LikelihoodWeighting(), times=UniformLogSNR())

    Reference: Song et al. 2021 (arXiv:2101.09258, section 5.1); Kingma et al. 2021 (VDM, arXiv:2107.00630).
    """

    def quantile(self, sde, probability):
        first, last = _levels(sde)
        return sde.time(first + (last - first) * probability)

    def density(self, sde, t):
        first, last = _levels(sde)
        return (sde.t1 - sde.t0) * sde.level_rate(t) / (last - first)


class NormalLogSNR(AbstractTimeSampling):
    """l ~ N(mean, std^2), truncated to the process's ends: the importance sampling of `KarrasWeighting`.

    Arguments:
        mean: Mean of the noise level log(sigma/alpha).
        std: Standard deviation of the noise level.

    Raises:
        ValueError: for std <= 0.

    Example:
        >>> loss = sgm.Loss(KarrasWeighting(sigma_data=0.5), NormalLogSNR(mean=-1.2, std=1.2))

    Reference: Karras et al. 2022 (arXiv:2206.00364, table 1).
    """

    mean: Number = -1.2
    std: Number = 1.2

    def __check_init__(self):
        check_positive("NormalLogSNR", "std", self.std)

    def quantile(self, sde, probability):
        lower, upper = self._ends(sde)
        level = self.mean + self.std * norm.ppf(lower + (upper - lower) * probability)
        return sde.time(level)

    def density(self, sde, t):
        lower, upper = self._ends(sde)
        level = sde.level(t)
        return (sde.t1 - sde.t0) * sde.level_rate(t) * norm.pdf(level, self.mean, self.std) / (upper - lower)

    def _ends(self, sde):
        return tuple(norm.cdf(level, self.mean, self.std) for level in _levels(sde))


class ChainSteps(AbstractTimeSampling):
    """k = 1 ... N of a chain, each as often.

    Example:
        >>> ChainSteps().quantile(chain, jnp.asarray([0.01, 0.5, 1.0]))  # of 20 steps
        Array([ 1., 10., 20.], dtype=float32)
        >>> loss = sgm.Loss(UniformWeighting(), ChainSteps())

    Reference: Ho et al. 2020 (arXiv:2006.11239, algorithm 1).
    """

    def quantile(self, sde, probability):
        return jnp.clip(jnp.ceil(probability * sde.t1), sde.t0, sde.t1)

    def density(self, sde, t):
        return jnp.ones_like(t)


def _levels(sde):
    return sde.level(sde.t0), jnp.minimum(sde.level(sde.t1), LARGEST_LEVEL)
