"""How much the error at each time counts."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from sgm.checks import check_positive
from sgm.sde.base import AbstractSDE
from sgm.types import Number

Times = Float[Array, " n"]


class AbstractWeighting(eqx.Module):
    """weight(t) of the squared error of the noise estimate, for t uniform on [t0, t1]."""

    @abstractmethod
    def weight(self, sde: AbstractSDE, t: Times) -> Times:
        """weight(t) >= 0."""


class UniformWeighting(AbstractWeighting):
    """weight = 1.

    Example:
        >>> value = sgm.Loss(UniformWeighting(), UniformTime())(sde, model, x, key)

    Reference: Ho et al. 2020 (arXiv:2006.11239, eq. 14).
    """

    def weight(self, sde, t):
        return jnp.ones_like(t)


class LikelihoodWeighting(AbstractWeighting):
    """weight = (t1 - t0) g^2 / (2 sigma^2): the loss is, in nats per dimension and up to a constant, a bound on -log p.

    Example:
        >>> loss = sgm.Loss(LikelihoodWeighting(), UniformLogSNR())  # the default
        >>> value = loss(sde, model, x, key)  # nats a dimension, up to a constant

    Reference: Song et al. 2021 (arXiv:2101.09258, theorem 1).
    """

    def weight(self, sde, t):
        return (sde.t1 - sde.t0) * sde.level_rate(t)


class KarrasWeighting(AbstractWeighting):
    """Noise levels l ~ N(mean, std^2), each weighted so that a Karras-preconditioned network starts at unit loss.

    Arguments:
        sigma_data: Standard deviation of the data in standardised coordinates, as in `sgm.model.Karras`.
        mean: Mean of the noise level log(sigma/alpha).
        std: Standard deviation of the noise level.

    Raises:
        ValueError: for sigma_data <= 0 and std <= 0.

    Example:
        >>> model = sgm.ScoreModel(MLP((2,), key=key), sgm.model.Karras(sigma_data=0.5), shape=(2,))
        >>> loss = sgm.Loss(KarrasWeighting(sigma_data=0.5), NormalLogSNR())

    Reference: Karras et al. 2022 (arXiv:2206.00364, table 1), whose ln(sigma) is l.
    """

    sigma_data: Number = 1.0
    mean: Number = -1.2
    std: Number = 1.2

    def __check_init__(self):
        check_positive("KarrasWeighting", "sigma_data", self.sigma_data)
        check_positive("KarrasWeighting", "std", self.std)

    def weight(self, sde, t):
        level = sde.level(t)
        # 1 + (sigma/alpha / sigma_data)^2, in the exponent of the density, where neither overflows.
        density = norm.logpdf(level, self.mean, self.std)
        gain = jnp.logaddexp(0.0, 2 * (level - jnp.log(self.sigma_data)))
        return (sde.t1 - sde.t0) * sde.level_rate(t) * jnp.exp(density + gain)
