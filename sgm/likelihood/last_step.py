"""The last step of a chain's bound, log p(x_0 | x_1)."""

import math
from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from sgm.checks import check_count
from sgm.model.base import Estimate
from sgm.types import Example, Number, Scalar


class AbstractReconstruction(eqx.Module):
    """The last step's log p(x_0 | x_1), in standardised coordinates."""

    @property
    def is_density(self) -> bool:
        """Whether it is the log of a density, which depends on units, and not of a probability."""
        return True

    @abstractmethod
    def log_prob(
        self, x0: Example, noise: Example, level: Scalar, estimate: Estimate, log_variance: Float[Array, "..."]
    ) -> Scalar:
        """In nats, or anything with the same mean over `noise`, with x_1 = cos x0 + sin noise at the given `level`.

        `log_variance` is that of the step before, from k = 2 to 1.
        """


class Flat(AbstractReconstruction):
    """N(denoised, tan(theta_1)^2 I), a density: exact where that of the data is flat over a width tan(theta_1).

    |noise|^2 - D, of mean zero, is taken off: it is most of what the estimate would vary by.

    Example:
        >>> bound = sgm.continuous_elbo(sde, model, x, key, reconstruction=Flat(), noise_levels=8)
    """

    def log_prob(self, x0, noise, level, estimate, log_variance):
        errors = (x0 - estimate.denoised) ** 2 * jnp.exp(-2 * level) - noise**2
        return -0.5 * jnp.sum(errors + 1 + math.log(2 * math.pi) + 2 * level)


class DiscretisedGaussian(AbstractReconstruction):
    """The probability under N(denoised, variance) of the bin, one of `count` of [low, high), in whose middle x0 lies.

    The first and the last bin reach to infinity. The variance is that of the step before, since the last step, to no
    noise at all, has none of its own.

    Arguments:
        count: Number of bins.
        low: Lower end of the first bin, in standardised coordinates.
        high: Upper end of the last bin, in standardised coordinates.

    Raises:
        TypeError: for a count that is not whole.
        ValueError: for fewer than one bin.

    Example:
        >>> middles = (2 * jnp.asarray([[0, 3], [1, 2]]) + 1) / 4 - 1  # of two examples of four levels
        >>> log_p = sgm.elbo(chain, model, middles, key, reconstruction=DiscretisedGaussian(4))

    Reference: Ho et al. 2020 (arXiv:2006.11239, eq. 13); Nichol and Dhariwal 2021 (arXiv:2102.09672).
    """

    count: int = eqx.field(static=True, default=256)
    low: Number = -1.0
    high: Number = 1.0

    def __check_init__(self):
        check_count("DiscretisedGaussian", "count", self.count)

    @property
    def is_density(self):
        return False

    def log_prob(self, x0, noise, level, estimate, log_variance):
        width, std = (self.high - self.low) / self.count, jnp.exp(0.5 * log_variance)
        upper, lower = ((x0 + side - estimate.denoised) / std for side in (width / 2, -width / 2))
        upper = jnp.where(x0 > self.high - width, jnp.inf, upper)
        lower = jnp.where(x0 < self.low + width, -jnp.inf, lower)
        # The difference of two values of the distribution function, in the tail where it keeps its digits.
        flip = lower > 0
        upper, lower = jnp.where(flip, -lower, upper), jnp.where(flip, -upper, lower)
        log_upper, log_lower = norm.logcdf(upper), norm.logcdf(lower)
        return jnp.sum(log_upper + jnp.log(-jnp.expm1(jnp.minimum(log_lower - log_upper, -1e-7))))
