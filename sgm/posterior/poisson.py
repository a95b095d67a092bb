"""Counts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from sgm.checks import is_traced
from sgm.posterior.evidence import AbstractGaussianLikelihood


class Poisson(AbstractGaussianLikelihood):
    """Counts, y ~ Poisson(function(x)).

    Methods that need Gaussian noise take the variance of the counts for the expected count, or 1 where that is less.
    `SplitGibbs`, `DAPS` and `TwistedSMC` use the likelihood itself.

    Arguments:
        function: Differentiable function of one example, in the data's units: the expected counts, above 0. What is
            below 1e-6 counts as that.
        y: Counts, with batch axes in front for many observations; nan where nothing was counted.

    Raises:
        ValueError: for negative counts.

    Example:
        >>> evidence = Poisson(lambda x: 50 * jax.nn.softplus(x), jnp.asarray([31, 4]))
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=SplitGibbs(sweeps=10))
    """

    function: Callable
    y: Float[Array, "..."]

    def __init__(self, function: Callable, y: Num[ArrayLike, "..."]):
        self.function, self.y = function, jnp.asarray(y, jnp.result_type(float))
        if not is_traced(self.y) and np.any(np.asarray(self.y) < 0):
            raise ValueError(f"Poisson: y has the entry {np.nanmin(self.y)}; pass counts of 0 or more.")

    def predicted(self, x):
        return self.function(x)

    def noise_variance(self, predicted):
        return jnp.maximum(predicted, 1.0)

    def log_likelihood(self, x):
        seen = jnp.isfinite(self.y)
        counts, expected = jnp.where(seen, self.y, 0.0), jnp.maximum(self.predicted(x), 1e-6)
        terms = counts * jnp.log(expected) - expected - jax.scipy.special.gammaln(counts + 1)
        return jnp.sum(jnp.where(seen, terms, 0.0))
