"""Each metric by a closed form."""

from dataclasses import dataclass

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import sgm
from sgm.data.simulated import AbstractSimulated
from sgm.evaluation import ContinuousBound, PowerSpectrum, SlicedWasserstein, sliced_wasserstein
from sgm.likelihood import TruncatedNormalDequantisation
from sgm.model import Gaussian, GaussianMixture, WithUnits


@dataclass(frozen=True)
class White(AbstractSimulated):
    """Images of independent pixels N(mean, std^2)."""

    shape: tuple[int, ...] = (4, 4, 1)
    mean: float = 3.0
    std: float = 0.4

    def simulate(self, key, n):
        return self.mean + self.std * jr.normal(key, (n, *self.shape)), {}

    def model(self, std=1.0):
        """The exact model, or one whose standard deviation is `std` times as large."""
        dim = int(np.prod(self.shape))
        model = Gaussian(jnp.zeros(self.shape), std**2 * jnp.eye(dim))
        return WithUnits(model, sgm.Units(jnp.asarray([self.mean]), jnp.asarray([self.std])))


DATA = White()


def report(metric, model, **options):
    how = {"n": 64, "batch_size": 32, "sampler": sgm.ProbabilityFlow(), "progress": False} | options
    return sgm.evaluate(sgm.VP(), model, DATA, [metric], jr.key(0), **how)


@pytest.mark.slow
def test_the_distance_of_two_gaussians_is_that_of_their_means():
    """The mean square over directions of a shift is |shift|^2 / D, and of two widths (s - 1)^2."""
    x = np.random.default_rng(0).normal(size=(20_000, 4))
    shift = np.asarray([1.0, -2.0, 0.5, 0.0])
    assert sliced_wasserstein(x, x + shift, jr.key(0), 2000) == pytest.approx(np.linalg.norm(shift) / 2, rel=0.05)
    assert sliced_wasserstein(x, 1.5 * x, jr.key(0)) == pytest.approx(0.5, rel=0.03)
    assert sliced_wasserstein(x, x, jr.key(0)) == 0


def test_sets_of_other_sizes_have_the_distance_of_their_quantile_functions():
    x, y = np.asarray([[0.0], [1.0]]), np.asarray([[0.0], [0.0], [3.0]])
    # On (0, 1/2) 0 to 0, on (1/2, 2/3) 1 to 0, on (2/3, 1) 1 to 3.
    assert sliced_wasserstein(x, y, jr.key(0)) == pytest.approx((1 / 6 + 4 / 3) ** 0.5)


def test_samples_of_an_exact_model_are_as_near_as_training_examples():
    exact, wide = (report(SlicedWasserstein(64), DATA.model(std), n=256, batch_size=256) for std in (1.0, 2.0))
    floor = exact["sliced_wasserstein_floor"].value
    assert exact["sliced_wasserstein"].value == pytest.approx(floor, rel=0.35)
    assert wide["sliced_wasserstein"].value == pytest.approx(1.0, abs=0.15)  # in standard deviations of the data
    assert exact.columns["samples_projected"].shape == (256, 64)


def test_the_spectrum_of_an_exact_model_is_that_of_the_data():
    exact, wide = (report(PowerSpectrum(), DATA.model(std), n=256, batch_size=256) for std in (1.0, 2.0))
    assert exact["power_error"].value < 3 * exact["power_error_floor"].value
    assert wide["power_error"].value == pytest.approx(np.log(4), abs=3 * wide["power_error_floor"].value)
    np.testing.assert_allclose(wide.columns["samples_power"].mean(), 4 * 0.4**2, rtol=0.1)


def test_the_bound_of_an_exact_model_is_log_p_in_the_units_of_the_data():
    found = report(ContinuousBound(noise_levels=32, draws=8), DATA.model())
    x, _ = DATA.rows("test", 0, 64)
    truth = stats.norm(3.0, 0.4).logpdf(x.astype(np.float64)).sum(axis=(1, 2, 3))
    errors = found.columns["continuous_bound_stderr"]
    off = found.columns["continuous_bound"] - truth
    assert abs(off.mean()) < 4 * np.sqrt(np.mean(errors**2) / 64)
    assert np.sqrt(np.mean(off**2)) == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.3)


def test_the_bound_of_grey_levels_is_in_bits():
    digits = sgm.data.Digits()
    model = WithUnits(Gaussian(jnp.zeros(digits.shape), jnp.eye(64)), digits.units)
    found = sgm.evaluate(sgm.VP(), model, digits, [ContinuousBound(16, draws=4)], jr.key(0), n=20, progress=False)
    row = found["continuous_bits_per_dim"]
    assert row.value == pytest.approx(-found["continuous_bound"].value / 64 / np.log(2))
    # Independent N(0, 1) for levels in [-1, 1): not far from what the closed form of its log-density says.
    x, _ = digits.rows("test", 0, 20)
    x = (x + 0.5) / 17 * 2 - 1
    expected = -(stats.norm().logpdf(x).sum(axis=(1, 2, 3)) + 64 * np.log(2 / 17)).mean() / 64 / np.log(2)
    error = np.sqrt(np.mean(found.columns["continuous_bound_stderr"] ** 2) / 20) / 64 / np.log(2)
    assert row.value == pytest.approx(expected, abs=4 * error) and error < 0.04


def test_the_bound_of_the_middles_of_levels_is_on_their_probability():
    shares = np.asarray([0.1, 0.2, 0.3, 0.4])
    levels = np.random.default_rng(0).choice(4, (400, 1), p=shares).astype(np.uint8)
    data = sgm.data.Arrays(levels, grey_levels=4)
    middles = jnp.asarray([[-0.75], [-0.25], [0.25], [0.75]])
    mixture = GaussianMixture(middles, jnp.full(4, 1e-3), jnp.asarray(shares, jnp.float32))
    sde, model = sgm.VP(t0=0.03), WithUnits(mixture, data.units)
    spread = float(sde.sigma(sde.t0) / sde.alpha(sde.t0))  # beside half a bin, 0.25
    assert 0.1 < spread < 0.13
    how = {"dequantisation": TruncatedNormalDequantisation(), "progress": False}
    found = sgm.evaluate(sde, model, data, [ContinuousBound(256, draws=16)], jr.key(0), **how)
    # The exact model knows the middle, about which the last step is normal. The ends reach to infinity.
    tail = stats.norm.sf(0.25 / spread)
    inside = 1 - tail * np.asarray([1, 2, 2, 1])
    truth = np.log(shares * inside)[data.rows("test", 0, data.size("test"))[0][:, 0]]
    error = float(np.sqrt(np.mean(found.columns["continuous_bound_stderr"] ** 2) / len(truth)))
    assert found.columns["continuous_bound"].mean() == pytest.approx(truth.mean(), abs=4 * error)
    assert error < 0.02
