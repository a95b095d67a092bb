"""Tweedie moment projected diffusions."""

import jax.numpy as jnp

from sgm.posterior.guided import AbstractGuidance
from sgm.solve.euler_maruyama import EulerMaruyama
from sgm.solve.method import AbstractMethod


class TMPD(AbstractGuidance):
    """Tweedie moment projection: A C A^T is taken for the diagonal of its row sums.

        weights(r) = r / (var + A C A^T 1)

    The row sum is what the paper uses in the place of the diagonal. It is exact where A C A^T is diagonal, and may be
    far too small where entries are correlated with both signs; then 0 is taken for it. A step costs two products with
    the Jacobian of the model.

    Arguments:
        sampler: Method that draws.

    Example:
        >>> evidence = Linear(Mask(jnp.asarray([True, False])), jnp.asarray([1.0]), std=1.0)
        >>> posterior = TMPD().guide(model, evidence)
        >>> posterior.denoise(sgm.VE(), 1.0, jnp.zeros(2)).round(2)  # of noise alone, the mean of the posterior
        Array([0.5, 0. ], dtype=float32)

    Reference: Boys et al. 2023 (arXiv:2310.06721).
    """

    sampler: AbstractMethod = EulerMaruyama(200)

    def weights(self, likelihood, level, covariance):
        ones = jnp.ones_like(likelihood.residual)
        variance = likelihood.push(covariance(likelihood.pull(ones)))
        total = likelihood.variance + jnp.maximum(variance, 0)
        # Without noise the row sums alone may be 0.
        return likelihood.residual / jnp.maximum(total, jnp.finfo(total.dtype).tiny ** 0.5)
