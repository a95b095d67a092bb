"""Periodic Gaussian volumes with a power-law spectrum, whose density is known exactly."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.data.simulated import AbstractSimulated
from sgm.data.spectra import check_grid, check_shape, check_spectrum, mode_powers, wave_numbers
from sgm.random import normal


@dataclasses.dataclass(frozen=True)
class GaussianVolume(AbstractSimulated):
    """Volumes of N x N x N voxels on a torus with the spectrum P(k) = amplitude (k / pivot)^-slope.

    k is the length of a wave vector in cycles per box; the mean has the power P(1). The modes of the orthonormal DFT
    are independent, as those of `GaussianField`, so that the density and the entropy are sums over them.

    Arguments:
        resolution: Voxels a side, N.
        pivot: Wave number, in cycles per box, at which the power is the amplitude.
        amplitude: Amplitude of the power spectrum.
        slope: Slope of the power spectrum.

    Raises:
        TypeError: for a resolution that is no whole number.
        ValueError: for a setting out of range.

    Example:
        >>> data = GaussianVolume(16)
        >>> data.shape
        (16, 16, 16, 1)
    """

    resolution: int = 16
    pivot: float = 4.0
    amplitude: float = 1.0
    slope: float = 2.0

    def __post_init__(self):
        check_grid("GaussianVolume", self.resolution, self.pivot)
        check_spectrum("GaussianVolume", self.amplitude, self.slope)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.resolution, self.resolution, self.resolution, 1

    @property
    def entropy(self) -> float:
        """The entropy of a volume in nats: half the sum of log(2 pi e P) over the modes."""
        return 0.5 * float(np.sum(np.log(2 * math.pi * math.e * self.spectrum)))

    @property
    def spectrum(self) -> np.ndarray:
        """P at each mode, in the order of `jnp.fft.fftn`, in float64."""
        return self.amplitude * (wave_numbers(self.resolution, 3) / self.pivot) ** -self.slope

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n N N N 1"], dict[str, Array]]:
        white = jnp.fft.fftn(normal(key, (n, *self.shape[:3]), jnp.float32), axes=(1, 2, 3))
        root = jnp.asarray(np.sqrt(self.spectrum), jnp.float32).astype(white.dtype)
        return jnp.fft.ifftn(root * white, axes=(1, 2, 3)).real[..., None], {}

    def log_prob(self, x: Float[Array, "N N N 1"]) -> Float[Array, ""]:
        """The log-density of a volume, in nats. Raises ValueError for `x` of another shape."""
        check_shape("GaussianVolume.log_prob", "x", x.shape, self.shape)
        power = jnp.asarray(self.spectrum, x.dtype)
        return -0.5 * jnp.sum(mode_powers(x) / power + jnp.log(2 * math.pi * power))

    def exact_log_prob(self, x, fields):
        return np.asarray(jax.lax.map(self.log_prob, jnp.asarray(x), batch_size=16))
