"""The posterior of several independent observations."""

import math

import jax
import jax.numpy as jnp

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, AbstractWrapper, check_alike, from_denoised
from sgm.nn.condition import Condition
from sgm.sde.level import LARGEST_LEVEL, cos_of

# Standard deviation of a posterior, over the prior's, below which an estimate of it is taken for an error.
_NARROWEST = 0.01


class Observations(AbstractWrapper):
    """The posterior p(x0 | y_1 ... y_n) of n independent observations, from a model of p(x0 | y) and the prior p(x0).

    Under the noise, with n observations that are independent given x0,

        p(x0 | u, y_1 ... y_n)  is proportional to  p(x0 | u)^(1 - n) p(x0 | u, y_1) ... p(x0 | u, y_n)

    Each factor is taken for a Gaussian, whose mean is the estimate and whose covariance is that of Tweedie's formula,
    sin^2 / cos times the Jacobian of the estimate. So it is exact where the posteriors and the prior are Gaussian. An
    evaluation costs D products with a Jacobian of each observation, and solves of D x D: it is for few parameters.

    Arguments:
        model: Conditional model of p(x0 | y).
        cond: Conditions, those of the n observations along the leading axis.
        prior: Model of the prior, of the same shape and in the same units, as which an exact one has `in_units`.

    Raises:
        ValueError: for models of different shapes or units, and a condition without a leading axis.

    Example:
        >>> observed = sgm.Condition(params=jnp.asarray([[0.2], [0.5], [0.3]]))  # three observations of one number
        >>> posterior = Observations(model, observed, prior.in_units(model.units))
        >>> draws = sgm.sample(sde, posterior, key, 8, method=sgm.DDIM(10))

    Reference: Geffner et al. 2023 (arXiv:2209.14249); Linhart et al. 2024 (arXiv:2404.07593).
    """

    model: AbstractModel
    cond: Condition
    prior: AbstractModel

    def __check_init__(self):
        check_instance("Observations", "model", self.model, AbstractModel, "sgm.ScoreModel(network, data=data)")
        check_instance("Observations", "cond", self.cond, Condition, "sgm.Condition(params=observed)")
        check_instance("Observations", "prior", self.prior, AbstractModel, "sgm.model.Gaussian(mean, covariance)")
        check_alike("Observations", self.model, self.prior)
        axes = self.cond.batch_axes(self.model.conditioning)
        if len(axes) != 1 or len(next(iter(axes))) != 1:
            raise ValueError(
                f"Observations: the parts of cond have batch axes {sorted(axes)}; pass conditions with one leading "
                "axis, that of the observations."
            )

    @property
    def conditioning(self):
        return None

    @property
    def defined_at_pure_noise(self):
        return self.model.defined_at_pure_noise and self.prior.defined_at_pure_noise

    def predict(self, level, u, cond=None, key=None):
        if cond is not None:
            raise ValueError("Observations: the observations are its conditions; leave cond out.")
        bounded = jnp.minimum(level, LARGEST_LEVEL)
        size = math.prod(self.shape)

        def moments(model, cond, least):
            """The mean, the precision in units of the noise's, 1 / tan(theta)^2, and the least eigenvalue of cos J."""

            def denoised(flat):
                return model.predict(bounded, flat.reshape(self.shape), cond, key).denoised.reshape(size)

            # tan(theta)^2 cos J is the covariance: cos J tends to I without noise.
            jacobian = cos_of(bounded) * jax.jacfwd(denoised)(u.reshape(size))
            values, vectors = jnp.linalg.eigh((jacobian + jacobian.T) / 2)
            values = jnp.maximum(values, least)
            return denoised(u.reshape(size)), (vectors / values) @ vectors.T, jnp.min(values)

        mean, precision, spread = moments(self.prior, None, jnp.finfo(u.dtype).tiny ** 0.5)
        # The Jacobian of a network is one of noise where that of the truth is small, and may be negative.
        least = _NARROWEST**2 * spread
        means, precisions, _ = jax.vmap(lambda cond: moments(self.model, cond, least))(self.cond)
        surplus = len(means) - 1
        total = jnp.sum(precisions, axis=0) - surplus * precision
        moment = jnp.einsum("nij,nj->i", precisions, means) - surplus * precision @ mean
        values, vectors = jnp.linalg.eigh((total + total.T) / 2)
        # Without data, what the noise leaves has the precision of the noise: less is no product of Gaussians.
        combined = vectors @ ((vectors.T @ moment) / jnp.maximum(values, 1.0))
        return from_denoised(level, u, combined.reshape(self.shape))
