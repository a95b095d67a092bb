"""Diffusion posterior sampling."""

import jax
import jax.numpy as jnp

from sgm.checks import check_at_least
from sgm.posterior.evidence import AbstractGaussianLikelihood
from sgm.posterior.guided import AbstractGuidance
from sgm.posterior.method import AbstractPosteriorMethod
from sgm.sde.level import sin_of
from sgm.solve.euler_maruyama import EulerMaruyama
from sgm.solve.method import AbstractMethod
from sgm.types import Number


class DPS(AbstractGuidance):
    """Diffusion posterior sampling: p(y | u) is taken for p(y | x0 = E[x0 | u]), with a step of a length of its own.

    The paper moves x by -zeta grad |y - A x0| after each step of its sampler. A step of width d in log-SNR moves u by d
    times the change of x0. So in continuous time, for m entries of y, with scale = zeta / (d sqrt(m)),

        weights(r) = scale r / (sin(theta)^2 rms(r))

    The paper's zeta = 1, for 1000 steps of 0.02 and images of 3 x 256 x 256, is a scale of 0.1. The strength of the
    noise has no part in it: it is a way to an example that fits y, not to draws of the posterior. Of a `Custom`
    likelihood the gradient grad log p(y | x0) itself takes the place of A^T weights, without a scale.

    Arguments:
        scale: Length of the steps of an entry, for each unit of log-SNR.
        sampler: Method that draws.

    Raises:
        ValueError: for a negative scale.

    Example:
        >>> evidence = Nonlinear(jnp.abs, jnp.asarray([0.5, 1.0]), std=0.1)
        >>> posterior = DPS(scale=0.1).guide(model, evidence)
        >>> x = sgm.sample(sde, posterior, key, 8, method=sgm.EulerMaruyama(20))

    Reference: Chung et al. 2023 (arXiv:2209.14687, algorithm 1).
    """

    scale: Number = 0.2
    sampler: AbstractMethod = EulerMaruyama(200)

    def __check_init__(self):
        check_at_least("DPS", "scale", self.scale, 0)

    def takes(self, evidence):
        return AbstractPosteriorMethod.takes(self, evidence)

    def weights(self, likelihood, level, covariance):
        square = jnp.mean(likelihood.residual**2)
        rms = jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
        return self.scale * likelihood.residual / (sin_of(level) ** 2 * rms)

    def change(self, evidence, units, level, x0, covariance):
        if isinstance(evidence, AbstractGaussianLikelihood):
            return super().change(evidence, units, level, x0, covariance)
        gradient = jax.grad(lambda z: evidence.log_likelihood(units.restore(z)))(x0)
        return covariance(gradient)
