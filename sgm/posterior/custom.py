"""A likelihood of the user's own."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.posterior.evidence import AbstractLikelihood


class Custom(AbstractLikelihood):
    """Any likelihood of one example. `DPS`, `DAPS`, `SplitGibbs` and `TwistedSMC` take it.

    Arguments:
        function: Differentiable function of one example, in the data's units: log p(y | x) in nats, up to a constant.

    Example:
        >>> evidence = Custom(lambda x: -jnp.sum(jnp.abs(x - jnp.asarray([0.5, 1.0]))) / 0.1)  # noise of Laplace
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=DAPS(steps=10))
    """

    function: Callable
    y: Float[Array, "0"]

    def __init__(self, function: Callable):
        self.function, self.y = function, jnp.zeros(0)  # What was observed is the function's own.

    def observation_shape(self, shape):
        return (0,)

    def log_likelihood(self, x):
        return self.function(x)
