"""Periodic Gaussian random fields with a power-law spectrum, whose densities and posteriors are known exactly.

Notation: x is a field on a grid of N x N pixels (N = `resolution`), zero in the mean; F is the orthonormal DFT, x_k the
entry of F x at the integer wave vector k (cycles per box), and k also its length. The modes are independent, so

    P(k) = E|x_k|^2 = amplitude (k / pivot)^-slope        S = Cov[x] = F^H diag(P) F
    log p(x | amplitude, slope) = -1/2 sum_k (|x_k|^2 / P(k) + log(2 pi P(k)))

The sum is over all N^2 modes; those at k and -k are conjugates, so the two terms are those of their two real parts. The
mean has the power of the longest waves, P(0) := P(1), so that S is regular. The variance of a pixel is the mean of P.
Matrices act on pixels in row-major order. Everything here works on one example, in the precision of its arguments.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.data.simulated import AbstractSimulated
from sgm.data.spectra import check_grid, check_shape, check_spectrum, mode_powers, wave_numbers
from sgm.nn.conditioning import Conditioning
from sgm.random import normal

# Each moves the slope by at most 1 / log(k_max / k_min): enough for any within 12 of 0 at 16x16, within 8 at 128x128.
_NEWTON_STEPS = 50


class AbstractGaussianField(AbstractSimulated):
    """A distribution built on fields with the spectrum P(k) = amplitude (k / pivot)^-slope.

    What depends on the spectrum's parameters takes them as `params`, the vector (amplitude, slope).
    """

    resolution: int
    """Pixels a side."""

    pivot: float
    """The wave number, in cycles per box, at which the power is the amplitude."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.resolution, self.resolution, 1

    def spectrum(self, params: Float[Array, " 2"]) -> Float[Array, "resolution resolution"]:
        """P at each mode, in the order of `jnp.fft.fft2`."""
        return jnp.exp(self._log_spectrum(params))

    def covariance(self, params: Float[Array, " 2"]) -> Float[Array, "D D"]:
        """S = F^H diag(P) F, over the D = resolution^2 pixels."""
        return self._circulant(self.spectrum(params))

    def log_prob(self, x: Float[Array, "resolution resolution 1"], params: Float[Array, " 2"]) -> Float[Array, ""]:
        """The log-density of a field given its parameters, in nats. Raises ValueError for `x` of another shape."""
        check_shape(f"{type(self).__name__}.log_prob", "x", x.shape, self.shape)
        log_power = self._log_spectrum(params)
        return -0.5 * jnp.sum(mode_powers(x) * jnp.exp(-log_power) + log_power + math.log(2 * math.pi))

    @abc.abstractmethod
    def conditional_log_prob(
        self, x: Float[Array, "resolution resolution 1"], fields: Mapping[str, Array]
    ) -> Float[Array, ""]:
        """The log-density of a field given the fields of its condition, in nats: what no conditional model can beat."""

    def exact_log_prob(self, x, fields):
        of_one = lambda row: self.conditional_log_prob(*row)  # noqa: E731
        return np.asarray(jax.lax.map(of_one, jax.tree.map(jnp.asarray, (x, dict(fields))), batch_size=16))

    def draw(self, key: PRNGKeyArray, params: Float[Array, " 2"]) -> Float[Array, "resolution resolution 1"]:
        """A field with the given parameters: F^H sqrt(P) F applied to white noise."""
        white = jnp.fft.fft2(normal(key, self.shape[:2], params.dtype))
        return jnp.fft.ifft2(jnp.sqrt(self.spectrum(params)).astype(white.dtype) * white).real[..., None]

    def maximum_likelihood(
        self, x: Float[Array, "*fields resolution resolution 1"]
    ) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
        """The parameters under which `x`, one field or several that share them, is likeliest; their standard errors.

        With w the mean of |x_k|^2 over the n fields and u = log(k / pivot), the likeliest amplitude at a slope is the
        mean of w exp(slope u) over the modes; what is left to minimise, log(amplitude) - slope mean(u), is convex.
        The errors are those of the Fisher information,

            std(slope) = sqrt(2 / (n N^2 var(u)))        std(log amplitude) = std(slope) sqrt(mean(u^2)),

        0.181 and 0.107 for one field of 16x16. There both estimates are biased by -0.011, in general by O(1 / n N^2).

        Raises ValueError for `x` of another shape.

        Reference: Doikov 2023, "Minimizing quasi-self-concordant functions by gradient regularization of Newton
            method".
        """
        check_shape(f"{type(self).__name__}.maximum_likelihood", "x", x.shape[-3:], self.shape)
        power = jnp.mean(mode_powers(x, 2), axis=tuple(range(x.ndim - 3)))
        log_k = self._log_k
        u, centred = (jnp.asarray(values, x.dtype) for values in (log_k, log_k - log_k.mean()))

        def newton(_, slope):
            weights = power * jnp.exp(slope * centred)
            weights = weights / jnp.sum(weights)
            first = jnp.sum(weights * centred)
            second = jnp.sum(weights * (centred - first) ** 2)
            # A plain Newton step may be of any length; as |third derivative| <= range * second, this one converges.
            return slope - first / (second + np.ptp(log_k).item() * jnp.abs(first))

        slope = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, jnp.zeros((), x.dtype))
        amplitude = jnp.mean(power * jnp.exp(slope * u))
        fields = math.prod(x.shape[:-3])
        slope_error = math.sqrt(2 / (fields * log_k.size * log_k.var()))
        amplitude_error = amplitude * slope_error * math.sqrt(np.mean(log_k**2))
        return jnp.stack([amplitude, slope]), jnp.stack([amplitude_error, jnp.full_like(slope, slope_error)])

    @property
    def _log_k(self) -> np.ndarray:
        """log(k / pivot) of each mode, in float64."""
        return np.log(wave_numbers(self.resolution, 2) / self.pivot)

    def _log_spectrum(self, params):
        amplitude, slope = params
        return jnp.log(amplitude) - slope * jnp.asarray(self._log_k, params.dtype)

    def _circulant(self, eigenvalues):
        """F^H diag(eigenvalues) F."""
        row = jnp.fft.ifft2(eigenvalues).real
        place = np.arange(self.resolution)
        shift = (place[:, None] - place) % self.resolution
        return row[shift[:, None, :, None], shift[None, :, None, :]].reshape(self.resolution**2, -1)


@dataclasses.dataclass(frozen=True)
class GaussianField(AbstractGaussianField):
    """Fields of unlike spectra; the condition "params" is (amplitude, slope), each uniform on its range.

    Arguments:
        resolution: Pixels a side.
        pivot: Wave number, in cycles per box, at which the power is the amplitude.
        amplitude: Range of the amplitude of the power spectrum.
        slope: Range of the slope of the power spectrum.

    Raises:
        TypeError: for a resolution that is no whole number.
        ValueError: for a setting out of range; a range needs a width, since `statistics` has to standardise by it.

    Example:
        >>> data = GaussianField(resolution=16)
        >>> x, fields = data.batch(0, 8, seed=0)
        >>> params, stderr = jax.jit(data.maximum_likelihood)(x[0])  # estimate of fields["params"][0]
    """

    resolution: int = 16
    pivot: float = 4.0
    amplitude: tuple[float, float] = (0.5, 1.5)
    slope: tuple[float, float] = (1.0, 3.0)

    conditioning: ClassVar[Conditioning] = Conditioning(params=2)

    def __post_init__(self):
        check_grid("GaussianField", self.resolution, self.pivot)
        for name, (low, high) in (("amplitude", self.amplitude), ("slope", self.slope)):
            if not -math.inf < low < high < math.inf:
                raise ValueError(f"GaussianField: {name} = ({low}, {high}); pass a lower and a higher end.")
        if self.amplitude[0] <= 0:
            raise ValueError(f"GaussianField: amplitude = {self.amplitude}; pass ends above 0, as powers are.")

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n resolution resolution 1"], dict[str, Array]]:
        key_params, key_x = jax.random.split(key)
        low, high = jnp.asarray([self.amplitude, self.slope], jnp.float32).T
        params = jax.random.uniform(key_params, (n, 2), jnp.float32, low, high)
        return jax.vmap(self.draw)(jax.random.split(key_x, n), params), {"params": params}

    def conditional_log_prob(self, x, fields):
        return self.log_prob(x, fields["params"])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.asarray([self.amplitude, self.slope], np.float32).T
        return (low + high) / 2, (high - low) / np.float32(math.sqrt(12))


@dataclasses.dataclass(frozen=True)
class GaussianFieldMap(AbstractGaussianField):
    """Fields of one spectrum; the condition "image" is a noisy map of the field with a rectangle hidden.

    The map's two channels are y = mask (x + noise_std * white) and mask, 0 on the hidden rectangle and 1 elsewhere. The
    rectangle lies anywhere, wrapped around the edges; its sides are uniform on N // 4 ... N - N // 4, so that a quarter
    of the pixels is hidden on average.

    Arguments:
        resolution: Pixels a side.
        pivot: Wave number, in cycles per box, at which the power is the amplitude.
        amplitude: Amplitude of the power spectrum.
        slope: Slope of the power spectrum.
        noise_std: Standard deviation of the noise of the map.

    Raises:
        TypeError: for a resolution that is no whole number.
        ValueError: for a setting out of range.

    Example:
        >>> data = GaussianFieldMap(resolution=8)
        >>> x, fields = data.batch(0, 8, seed=0)
        >>> mean, cov = jax.jit(data.posterior)(fields["image"][0])  # of x[0], to judge a conditional model by
        >>> mean.shape, cov.shape
        ((8, 8, 1), (64, 64))
    """

    resolution: int = 16
    pivot: float = 4.0
    amplitude: float = 1.0
    slope: float = 2.0
    noise_std: float = 0.25

    def __post_init__(self):
        check_grid("GaussianFieldMap", self.resolution, self.pivot)
        check_spectrum("GaussianFieldMap", self.amplitude, self.slope)
        if not 0 < self.noise_std < math.inf:
            raise ValueError(f"GaussianFieldMap: noise_std = {self.noise_std}; pass a positive number.")

    @property
    def conditioning(self) -> Conditioning:
        return Conditioning(image=(self.resolution, self.resolution, 2))

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n resolution resolution 1"], dict[str, Array]]:
        key_x, key_image = jax.random.split(key)
        x = jax.vmap(self.draw, (0, None))(jax.random.split(key_x, n), self._params(jnp.float32))
        return x, {"image": jax.vmap(self.observe)(jax.random.split(key_image, n), x)}

    def figures(self, sde, model, draw):
        """Test maps in rows: the map, the field, the exact mean given the map, and four samples given the map."""
        from sgm import plot  # here, since most programs draw nothing

        rows, draws = 4, 4
        x, fields = self.rows("test", 0, rows)
        repeated = {name: np.repeat(values, draws, axis=0) for name, values in fields.items()}
        samples = draw(repeated, rows * draws)
        means, _ = jax.vmap(self.posterior)(jnp.asarray(fields["image"]))
        columns = [fields["image"][..., :1], x, means, *jnp.swapaxes(samples.reshape(rows, draws, *x.shape[1:]), 0, 1)]
        return {"posteriors": plot.film_strip(jnp.stack(columns, axis=1), "map, field, exact mean, four samples")}

    def conditional_log_prob(self, x, fields):
        mean, cov = self.posterior(fields["image"])
        return jax.scipy.stats.multivariate_normal.logpdf(x.reshape(-1), mean.reshape(-1), cov)

    def observe(
        self, key: PRNGKeyArray, x: Float[Array, "resolution resolution 1"]
    ) -> Float[Array, "resolution resolution 2"]:
        """The map of a field, with noise and a hidden rectangle of its own."""
        key_corner, key_sides, key_noise = jax.random.split(key, 3)
        least, most = self.resolution // 4, self.resolution - self.resolution // 4
        corner = jax.random.randint(key_corner, (2, 1), 0, self.resolution, jnp.int32)
        sides = jax.random.randint(key_sides, (2, 1), least, most + 1, jnp.int32)
        rows, columns = (jnp.arange(self.resolution, dtype=jnp.int32) - corner) % self.resolution < sides
        mask = jnp.where(rows[:, None] & columns, 0.0, 1.0).astype(x.dtype)[..., None]
        noise = self.noise_std * normal(key_noise, x.shape, x.dtype)
        return jnp.concatenate([mask * (x + noise), mask], axis=-1)

    def posterior(
        self, image: Float[Array, "resolution resolution 2"]
    ) -> tuple[Float[Array, "resolution resolution 1"], Float[Array, "D D"]]:
        """Mean and covariance of x given its map: p(x | image) = N(mean, C), with M = diag(mask) and R = sqrt(S),

            C = (S^-1 + M / noise_std^2)^-1 = R (I + R M R / noise_std^2)^-1 R        mean = C y / noise_std^2

        The matrix inverted has a condition number of up to 1 + max(P) / noise_std^2, 257 by default: ask for float64
        where that passes 1e4. Takes O(D^3) operations, D = resolution^2.

        Raises ValueError for an image of another shape.

        Reference: Rybicki and Press 1992, "Interpolation, realization, and reconstruction of noisy, irregularly sampled
            data".
        """
        check_shape("GaussianFieldMap.posterior", "image", image.shape, (self.resolution, self.resolution, 2))
        y, mask = image.reshape(-1, 2).T
        with jax.default_matmul_precision("highest"):
            root = self._circulant(jnp.sqrt(self.spectrum(self._params(image.dtype))))
            precision = jnp.eye(len(y), dtype=image.dtype) + (root * mask) @ root / self.noise_std**2
            factor = jnp.linalg.cholesky(precision)
            whitened = jax.scipy.linalg.solve_triangular(factor, root, lower=True)
            cov = whitened.T @ whitened
            mean = cov @ (mask * y) / self.noise_std**2
        return mean.reshape(self.shape), cov

    def _params(self, dtype):
        return jnp.asarray([self.amplitude, self.slope], dtype)
