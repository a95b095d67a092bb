"""The bound in continuous time: of an exact model it is log p itself, of any Gaussian model it has a closed form."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import integrate, stats
from truth import PROCESSES, gaussian

import sgm
from sgm.likelihood import DiscretisedGaussian
from sgm.model import Gaussian, WithUnits

MODEL = gaussian(3)
COVARIANCE = np.float64(MODEL.eigenvectors) @ np.diag(np.float64(MODEL.eigenvalues)) @ np.float64(MODEL.eigenvectors).T
X = np.float32(stats.multivariate_normal(np.float64(MODEL.mean), COVARIANCE).rvs(4, random_state=0))
ALL = {**PROCESSES, "pure noise": sgm.Rectified(t1=1.0)}


@pytest.mark.slow_except("VP", "pure noise")
@pytest.mark.parametrize("sde", ALL.values(), ids=ALL.keys())
def test_the_bound_of_an_exact_model_is_log_p(sde):
    truth = stats.multivariate_normal(np.float64(MODEL.mean), COVARIANCE).logpdf(np.float64(X))
    result = sgm.continuous_elbo(sde, MODEL, X, jr.key(1), noise_levels=128, draws=256, full=True)
    assert np.all(result.stderr < 0.07)
    assert np.all(np.abs(result.value - truth) < 4 * result.stderr + 2e-3)


@pytest.mark.slow_except("VP", "pure noise")
@pytest.mark.parametrize("name", ["VP", "VE", "pure noise"])
def test_the_bound_of_a_wrong_gaussian_is_that_of_its_closed_form(name):
    """One dimension, the model N(0, v): E (noise - E[noise | u])^2 is a quadratic in x0, integrated in float64."""
    sde, variance, x0 = ALL[name], 0.3, 0.8

    def error(level):
        t = np.tan(np.arctan(np.exp(level)))
        gain = variance / (variance + t**2)  # of x0 + t noise, by which the model finds x0
        return ((1 - gain) * x0 / t) ** 2 + gain**2

    low, high = float(sde.level(sde.t0)), min(float(sde.level(sde.t1)), 20.0)
    diffusion = integrate.quad(error, low, high, epsabs=1e-10, limit=500)[0]
    ratio = np.exp(2 * low)
    gain = variance / (variance + ratio)
    last = -0.5 * (((1 - gain) * x0) ** 2 / ratio + gain**2 + np.log(2 * np.pi * ratio))
    cos2 = 1 / (1 + np.exp(2 * high))
    prior = 0.5 * (cos2 * (x0**2 - 1) - np.log1p(-cos2))
    model = Gaussian(jnp.zeros(1), jnp.asarray([[variance]]))
    result = sgm.continuous_elbo(sde, model, jnp.full((1, 1), x0), jr.key(2), noise_levels=256, draws=512, full=True)
    np.testing.assert_allclose(result.diffusion[0], diffusion, atol=4 * float(result.stderr[0]))
    np.testing.assert_allclose(result.reconstruction[0], last, atol=2e-3)
    np.testing.assert_allclose(result.prior[0], prior, rtol=1e-4, atol=1e-9)
    assert abs(float(result.value[0]) - (last - diffusion - prior)) < 4 * float(result.stderr[0]) + 2e-3
    # It is below log p of the model, and says so: the truth is that of N(0, v).
    assert float(result.value[0]) < stats.norm(0, variance**0.5).logpdf(x0) + 4 * float(result.stderr[0])


def test_the_standard_error_is_that_of_independent_estimates():
    calls = [
        sgm.continuous_elbo(sgm.VP(), MODEL, X[:1], jr.key(k), noise_levels=16, draws=16, full=True) for k in range(40)
    ]
    spread = np.std([float(call.value[0]) for call in calls], ddof=1)
    assert np.sqrt(np.mean([float(call.stderr[0]) ** 2 for call in calls])) == pytest.approx(spread, rel=0.35)


def test_the_bound_is_in_the_units_of_the_data():
    units = sgm.Units(jnp.asarray([5.0, -3.0, 0.0]), jnp.asarray([1e-3, 10.0, 1e4]))
    how = {"noise_levels": 8, "draws": 2, "full": True}
    plain = sgm.continuous_elbo(sgm.VP(), MODEL, X, jr.key(0), **how)
    scaled = sgm.continuous_elbo(sgm.VP(), WithUnits(MODEL, units), units.restore(jnp.asarray(X)), jr.key(0), **how)
    np.testing.assert_allclose(scaled.value, plain.value - np.log(1e-3 * 10.0 * 1e4), atol=0.02)
    np.testing.assert_allclose(scaled.diffusion, plain.diffusion, rtol=1e-2)


def test_grey_levels_have_a_probability():
    """The sum over all levels of exp(bound) is below 1, and near it for a model that is exact and well resolved."""
    levels = jnp.linspace(-1 + 1 / 8, 1 - 1 / 8, 8)[:, None]
    model = Gaussian(jnp.zeros(1), jnp.asarray([[0.25]]))
    sde = sgm.VE(sigma_min=0.02)
    result = sgm.continuous_elbo(
        sde, model, levels, jr.key(0), reconstruction=DiscretisedGaussian(8), noise_levels=128, draws=256, full=True
    )
    edges = np.linspace(-1, 1, 9)
    edges[[0, -1]] = -np.inf, np.inf
    expected = np.diff(stats.norm(0, 0.5).cdf(edges))
    assert np.sum(np.exp(result.value)) < 1 + 0.02
    assert np.all(np.asarray(result.value) < np.log(expected) + 4 * np.asarray(result.stderr))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_levels": 0}, "noise_levels = 0"),
        ({"draws": 0}, "draws = 0"),
        ({"x": jnp.full((2, 3), jnp.inf)}, "6 of the 6 entries of x are not finite"),
        ({"x": jnp.zeros((2, 4))}, r"x has shape \(2, 4\)"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"x": jnp.zeros((2, 3))} | change
    with pytest.raises(ValueError, match=message):
        sgm.continuous_elbo(sgm.VP(), MODEL, key=jr.key(0), **arguments)


def test_terms_sum_to_the_value():
    result = sgm.continuous_elbo(sgm.VP(), MODEL, X[0], jr.key(0), noise_levels=8, full=True)
    assert result.value.shape == () and result.transitions is None
    np.testing.assert_allclose(result.value, result.reconstruction - result.diffusion - result.prior, rtol=1e-5)
