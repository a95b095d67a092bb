"""Volumes and signals whose densities are known, and power spectra of any rank."""

import re

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from sgm.data import GaussianProcess, GaussianVolume, power_spectrum

VOLUME = GaussianVolume(6, pivot=2.0, amplitude=1.5, slope=1.2)
SIGNAL = GaussianProcess(20, scale=3.0, noise_std=0.2)


def covariance_of_modes(volume):
    """F^H diag(P) F, entry by entry from the definition of the transform."""
    n = volume.resolution
    places = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    waves = np.exp(-2j * np.pi / n * (places @ places.T)) / n**1.5
    return (waves.conj().T @ (volume.spectrum.reshape(-1, 1) * waves)).real


def test_the_density_of_a_volume_is_that_of_its_covariance(float64):
    x = np.asarray(VOLUME.simulate(jr.key(0), 3)[0], np.float64)
    exact = stats.multivariate_normal(cov=covariance_of_modes(VOLUME)).logpdf(x.reshape(3, -1))
    np.testing.assert_allclose(VOLUME.exact_log_prob(x, {}), exact, rtol=1e-8)
    entropy = stats.multivariate_normal(cov=covariance_of_modes(VOLUME)).entropy()
    assert VOLUME.entropy == pytest.approx(float(entropy), rel=1e-8)


def test_the_density_of_a_signal_is_that_of_its_covariance():
    x = np.asarray(SIGNAL.simulate(jr.key(0), 3)[0], np.float64)
    truth = stats.multivariate_normal(cov=SIGNAL.covariance)
    np.testing.assert_allclose(SIGNAL.exact_log_prob(x, {}), truth.logpdf(x[..., 0]), rtol=1e-8)
    assert SIGNAL.entropy == pytest.approx(float(truth.entropy()), rel=1e-8)
    assert SIGNAL.covariance[0, 0] == pytest.approx(1.04)
    assert SIGNAL.covariance[5, 8] == pytest.approx((1 + np.sqrt(3)) * np.exp(-np.sqrt(3)))


@pytest.mark.parametrize("data", [VOLUME, SIGNAL], ids=["volume", "signal"])
def test_draws_have_the_entropy_and_the_moments(data):
    x = np.asarray(data.simulate(jr.key(1), 4000)[0])
    log_p = data.exact_log_prob(x, {})
    assert -log_p.mean() == pytest.approx(data.entropy, abs=float(4 * log_p.std() / 4000**0.5))
    size = data.covariance[0, 0] if data is SIGNAL else data.spectrum.mean()
    assert x.var(axis=0).mean() == pytest.approx(size, rel=0.03)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=5 * np.sqrt(size / 4000))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_power_spectra_of_every_rank_average_the_modes_of_each_shell(rank):
    n = 6
    x = jr.normal(jr.key(2), (*[n] * rank, 1))
    k, power = jax.jit(power_spectrum)(x)
    modes = np.abs(np.fft.fftn(np.asarray(x[..., 0], np.float64), norm="ortho")) ** 2
    length = np.sqrt(sum(axis**2 for axis in np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * rank, indexing="ij")))
    np.testing.assert_array_equal(k, [1, 2, 3])
    np.testing.assert_allclose(power, [modes[np.rint(length) == shell].mean() for shell in (1, 2, 3)], rtol=1e-5)


def test_the_spectrum_of_draws_is_the_one_asked_for():
    x = VOLUME.simulate(jr.key(3), 2000)[0]
    powers = np.mean(jax.vmap(lambda x: power_spectrum(x)[1])(x), axis=0)
    length = (VOLUME.spectrum / 1.5) ** (-1 / 1.2) * 2.0
    length[0, 0, 0] = 0
    expected = [VOLUME.spectrum[np.rint(length) == shell].mean() for shell in (1, 2, 3)]
    np.testing.assert_allclose(powers, expected, rtol=0.02)


@pytest.mark.quick
def test_settings_out_of_range():
    with pytest.raises(ValueError, match="GaussianVolume: resolution = 1; pass resolution >= 2"):
        GaussianVolume(1)
    with pytest.raises(ValueError, match=r"GaussianVolume: amplitude = 0.0; pass a positive number"):
        GaussianVolume(amplitude=0.0)
    with pytest.raises(ValueError, match="GaussianVolume: slope = nan; pass a finite number"):
        GaussianVolume(slope=float("nan"))
    with pytest.raises(ValueError, match=r"GaussianProcess: scale = -1.0; pass a positive number"):
        GaussianProcess(scale=-1.0)
    with pytest.raises(ValueError, match="GaussianProcess: length = 0; pass length >= 1"):
        GaussianProcess(0)
    for shape in ((3, 40, 1), (3, 20), (20, 1), (20,)):
        message = rf"GaussianProcess.log_prob: x has shape {re.escape(str(shape))}; pass signals of shape \(n, 20, 1\)"
        with pytest.raises(ValueError, match=message):
            SIGNAL.log_prob(np.zeros(shape))
    with pytest.raises(
        ValueError, match=r"GaussianVolume.log_prob: x has shape \(4, 4, 4, 1\), but that of one example is \(6, 6"
    ):
        VOLUME.log_prob(jnp.zeros((4, 4, 4, 1)))
    with pytest.raises(ValueError, match=r"power_spectrum: x has shape \(4, 6, 1\); pass one, two or three axes"):
        power_spectrum(jnp.zeros((4, 6, 1)))


@pytest.mark.quick
@pytest.mark.usefixtures("types_unchecked")
def test_sizes_that_are_no_whole_numbers():
    with pytest.raises(TypeError, match=r"GaussianVolume: resolution = 4.5; pass a whole number, resolution >= 2"):
        GaussianVolume(4.5)
    with pytest.raises(TypeError, match=r"GaussianProcess: length = 10.5; pass a whole number, length >= 1"):
        GaussianProcess(10.5)
