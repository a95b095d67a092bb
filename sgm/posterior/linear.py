"""Linear observations with Gaussian noise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from sgm.checks import is_traced
from sgm.posterior.evidence import AbstractGaussianLikelihood, check_std
from sgm.random import normal

_DIFFERENCE = 1e-3  # Relative, above which an operator is not linear: that of rounding is 1e-5.


class Linear(AbstractGaussianLikelihood):
    """y = operator(x) + std noise, with a linear operator.

    Arguments:
        operator: Linear function of one example, in the data's units: one of `sgm.posterior`, or any of JAX.
        y: Observation, with batch axes in front for many; nan where nothing was measured.
        std: Standard deviation of the noise, broadcast to one observation.

    Raises:
        ValueError: for std <= 0; when it is used, for an operator that is not linear, which is tried with two random
            examples.

    Example:
        >>> evidence = Linear(sgm.posterior.Blur(2.0), jnp.ones((16, 16, 1)), std=0.1)
        >>> evidence.log_likelihood(jnp.ones((16, 16, 1))).round()  # -256 log(0.1 sqrt(2 pi))
        Array(354., dtype=float32)
    """

    operator: Callable
    y: Float[Array, "..."]
    std: Float[Array, "..."]

    def __init__(self, operator: Callable, y: Float[Array | np.ndarray, "..."], std: Float[ArrayLike, "..."]):
        self.operator, self.y, self.std = operator, jnp.asarray(y), jnp.asarray(std)
        check_std("Linear", self.std)

    def predicted(self, x):
        return self.operator(x)

    def noise_variance(self, predicted):
        return jnp.broadcast_to(self.std**2, predicted.shape)

    def check(self, call, shape):
        super().check(call, shape)
        if is_traced(self.operator):
            return
        with jax.ensure_compile_time_eval():
            x, other = normal(jr.key(0), (2, *shape))
            expected = 3 * self.operator(x) + 2 * self.operator(other)
            difference = jnp.linalg.norm(self.operator(3 * x + 2 * other) - expected)
            is_linear = bool(difference <= _DIFFERENCE * jnp.linalg.norm(expected))
        if not is_linear:
            raise ValueError(
                f"{call}: the operator of Linear is not linear, since operator(3 a + 2 b) is not 3 operator(a) + 2 "
                "operator(b) of two random examples; pass Nonlinear(function, y, std)."
            )
