"""Moment matching posterior sampling."""

import equinox as eqx

from sgm.checks import check_count
from sgm.posterior.guided import AbstractGuidance
from sgm.posterior.solve import solve
from sgm.solve.euler_maruyama import EulerMaruyama
from sgm.solve.method import AbstractMethod


class MMPS(AbstractGuidance):
    """Moment matching posterior sampling: x0 given u is taken for a Gaussian, with its own mean and covariance.

        weights(r) = (var + A C A^T)^-1 r

    The system is solved by conjugate gradients, of which each iteration costs a product with the Jacobian of the model.
    It is exact for Gaussian data with enough iterations, at most as many as y has entries.

    Arguments:
        iterations: Largest number of iterations.
        sampler: Method that draws.

    Raises:
        TypeError: for a number of iterations that is no integer.
        ValueError: for fewer than one iteration.

    Example:
        >>> evidence = Linear(Mask(jnp.asarray([True, False])), jnp.asarray([1.0]), std=0.1)
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=MMPS(iterations=2, sampler=sgm.DDIM(10)))

    Reference: Rozet et al. 2024 (arXiv:2405.13712, section 4.1).
    """

    iterations: int = eqx.field(static=True, default=8)
    sampler: AbstractMethod = EulerMaruyama(200)

    def __check_init__(self):
        check_count("MMPS", "iterations", self.iterations)

    def weights(self, likelihood, level, covariance):
        def matrix(w):
            return likelihood.push(covariance(likelihood.pull(w)))

        return solve(matrix, likelihood.variance, likelihood.residual, self.iterations)
