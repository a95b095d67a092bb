"""Signals of a Gaussian process, whose density is known exactly."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_count
from sgm.data.simulated import AbstractSimulated


@dataclasses.dataclass(frozen=True)
class GaussianProcess(AbstractSimulated):
    """Signals of a stationary Gaussian process at equal steps, with a Matern covariance and white noise.

    The covariance of two samples that are r steps apart, with z = sqrt(3) r / scale, is
    (1 + z) exp(-z) + noise_std^2 [r = 0].

    Arguments:
        length: Number of samples of a signal.
        scale: Correlation length, in steps.
        noise_std: Standard deviation of the white noise.

    Raises:
        TypeError: for a length that is no whole number.
        ValueError: for a setting out of range.

    Example:
        >>> data = GaussianProcess(64)
        >>> data.shape
        (64, 1)

    Reference: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, eq. 4.17.
    """

    length: int = 64
    scale: float = 8.0
    noise_std: float = 0.1

    def __post_init__(self):
        check_count("GaussianProcess", "length", self.length)
        for name in ("scale", "noise_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"GaussianProcess: {name} = {getattr(self, name)}; pass a positive number.")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.length, 1

    @property
    def covariance(self) -> np.ndarray:
        """The covariance of the samples of a signal, in float64."""
        steps = np.arange(self.length)
        z = math.sqrt(3) / self.scale * np.abs(steps[:, None] - steps)
        return (1 + z) * np.exp(-z) + self.noise_std**2 * np.eye(self.length)

    @property
    def entropy(self) -> float:
        """The entropy of a signal in nats."""
        return 0.5 * float(np.linalg.slogdet(2 * math.pi * math.e * self.covariance)[1])

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n length 1"], dict[str, Array]]:
        white = jax.random.normal(key, (n, self.length), jnp.float32)
        root = jnp.asarray(np.linalg.cholesky(self.covariance), jnp.float32)
        return jnp.matmul(white, root.T, precision="highest")[..., None], {}

    def log_prob(self, x: Any) -> Float[np.ndarray, " n"]:
        """The log-density of signals of shape (n, length, 1), in nats, in float64; ValueError for another shape."""
        x = np.asarray(x, np.float64)
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"GaussianProcess.log_prob: x has shape {x.shape}; pass signals of shape (n, {self.length}, 1)."
            )
        root = np.linalg.cholesky(self.covariance)
        whitened = np.linalg.solve(root, x[..., 0].T)
        log_volume = np.sum(np.log(np.diag(root))) + 0.5 * self.length * math.log(2 * math.pi)
        return -0.5 * np.sum(whitened**2, axis=0) - log_volume

    def exact_log_prob(self, x, fields):
        return self.log_prob(x)
