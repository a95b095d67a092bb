"""Observations by any function, with Gaussian noise."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sgm.posterior.evidence import AbstractGaussianLikelihood, check_std


class Nonlinear(AbstractGaussianLikelihood):
    """y = function(x) + std noise. Where an operator is needed, it is the derivative at the estimate.

    Arguments:
        function: Differentiable function of one example, in the data's units.
        y: Observation, with batch axes in front for many; nan where nothing was measured.
        std: Standard deviation of the noise, broadcast to one observation.

    Raises:
        ValueError: for std <= 0.

    Example:
        >>> image = jr.normal(key, (8, 8, 1))
        >>> def amplitudes(x):
        ...     return jnp.abs(jnp.fft.fft2(x[..., 0]))
        >>> evidence = Nonlinear(amplitudes, amplitudes(image), std=0.1)  # an image without its phases
    """

    function: Callable
    y: Float[Array, "..."]
    std: Float[Array, "..."]

    def __init__(self, function: Callable, y: Float[Array | np.ndarray, "..."], std: Float[ArrayLike, "..."]):
        self.function, self.y, self.std = function, jnp.asarray(y), jnp.asarray(std)
        check_std("Nonlinear", self.std)

    def predicted(self, x):
        return self.function(x)

    def noise_variance(self, predicted):
        return jnp.broadcast_to(self.std**2, predicted.shape)
