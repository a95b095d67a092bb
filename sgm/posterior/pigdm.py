"""Pseudo-inverse guidance."""

import equinox as eqx

from sgm.checks import check_count
from sgm.posterior.guided import AbstractGuidance
from sgm.posterior.solve import solve
from sgm.sde.level import sin_of
from sgm.solve.euler_maruyama import EulerMaruyama
from sgm.solve.method import AbstractMethod


class PiGDM(AbstractGuidance):
    """Pseudo-inverse guidance: x0 given u is taken for N(E[x0 | u], sin(theta)^2 I), as of standardised white data.

        weights(r) = (var + sin^2 A A^T)^-1 r

    It is exact for data N(0, I), in standardised coordinates. A step costs one product with the Jacobian of the model.

    Arguments:
        iterations: Largest number of steps of conjugate gradients, which do not ask the model.
        sampler: Method that draws.

    Raises:
        TypeError: for a number of iterations that is no integer.
        ValueError: for fewer than one iteration.

    Example:
        >>> evidence = Exactly(jnp.asarray([True, False]), jnp.asarray([0.7, 0.0]))
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=PiGDM(sampler=sgm.DDIM(10)))

    Reference: Song et al. 2023 (openreview.net/forum?id=9_gsMA8MRKQ, section 3.2).
    """

    iterations: int = eqx.field(static=True, default=50)
    sampler: AbstractMethod = EulerMaruyama(200)

    def __check_init__(self):
        check_count("PiGDM", "iterations", self.iterations)

    def weights(self, likelihood, level, covariance):
        square = sin_of(level) ** 2

        def matrix(w):
            return square * likelihood.push(likelihood.pull(w))

        return solve(matrix, likelihood.variance, likelihood.residual, self.iterations)
