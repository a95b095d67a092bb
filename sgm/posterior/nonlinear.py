"""Observations by any function, with Gaussian noise."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.posterior.evidence import AbstractGaussianLikelihood
from sgm.posterior.linear import check_std


class Nonlinear(AbstractGaussianLikelihood):
    """y = function(x) + std noise. Where an operator is needed, it is the derivative at the estimate.

    Arguments:
        function: Differentiable function of one example, in the data's units.
        y: Observation, with batch axes in front for many; nan where nothing was measured.
        std: Standard deviation of the noise, broadcast to one observation.

    Raises:
        ValueError: for std <= 0.

    Example:
        >>> evidence = Nonlinear(lambda x: jnp.abs(jnp.fft.fft2(x[..., 0])), amplitudes, std=0.1)
    """

    function: Callable
    y: Float[Array, "..."] = eqx.field(converter=jnp.asarray)
    std: Float[Array, "..."] = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        check_std("Nonlinear", self.std)

    def predicted(self, x):
        return self.function(x)

    def noise_variance(self, predicted):
        return jnp.broadcast_to(self.std**2, predicted.shape)
