"""The data's own units in every call, held against closed forms in those units."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.model import Gaussian, GaussianMixture, WithUnits
from sgm.nn import Units
from sgm.posterior import Inpainting, PosteriorAncestral

SCALES = 10.0 ** np.array([-6, -3, -1, 1, 3, 6])
MEAN = np.array([1e-5, 2.0, 0.0, -30.0, 1e4, 5e6])
UNITS = Units(MEAN, SCALES)
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
COVARIANCE = ROTATION @ np.diag([0.1, 0.2, 0.4, 0.8, 1.2, 2.0]) @ ROTATION.T
RAW_COVARIANCE = SCALES[:, None] * COVARIANCE * SCALES
GAUSSIAN = WithUnits(Gaussian(jnp.zeros(6), jnp.asarray(COVARIANCE, jnp.float32)), UNITS)
SDE = sgm.VP()


def at_t0(covariance, mean):
    """Moments of x at t0 in raw units."""
    alpha, sigma = float(SDE.alpha(SDE.t0)), float(SDE.sigma(SDE.t0))
    return MEAN + alpha * (mean - MEAN), alpha**2 * covariance + sigma**2 * np.diag(SCALES**2)


def raw(n, seed=1):
    z = np.random.default_rng(seed).multivariate_normal(np.zeros(6), COVARIANCE, n)
    return MEAN + SCALES * z


def log_normal(x, mean, covariance):
    """log N(x; mean, covariance), by a Cholesky factor, which does not mind scales."""
    factor = np.linalg.cholesky(covariance)
    z = np.linalg.solve(factor, (x - mean).T)
    return -0.5 * np.sum(z**2, axis=0) - np.sum(np.log(np.diag(factor))) - 0.5 * len(mean) * np.log(2 * np.pi)


def test_log_prob_is_the_closed_form_in_raw_units():
    means = np.random.default_rng(2).normal(size=(3, 6))
    mixture = GaussianMixture(
        jnp.asarray(means, jnp.float32), jnp.asarray([0.3, 0.5, 0.8]), jnp.asarray([0.2, 0.3, 0.5])
    )
    x = MEAN + SCALES * (means[[0, 1, 2, 2]] + 0.4 * np.random.default_rng(3).normal(size=(4, 6)))
    found = sgm.log_prob(SDE, WithUnits(mixture, UNITS), x, trace=sgm.Exact(), prior=mixture.marginal(SDE, SDE.t1))
    alpha, sigma = float(SDE.alpha(SDE.t0)), float(SDE.sigma(SDE.t0))
    parts = [
        np.log(weight) + log_normal(x, *_component(alpha, sigma, mean, std))
        for weight, mean, std in zip((0.2, 0.3, 0.5), means, (0.3, 0.5, 0.8), strict=True)
    ]
    np.testing.assert_allclose(found, np.logaddexp.reduce(parts), atol=1e-3)


def _component(alpha, sigma, mean, std):
    return MEAN + SCALES * alpha * mean, np.diag(SCALES**2 * (alpha**2 * std**2 + sigma**2))


def test_samples_and_paths_are_in_raw_units():
    how = {"method": sgm.DPMSolverPP(20)}
    x = np.asarray(sgm.sample(SDE, GAUSSIAN, jr.key(0), 4000, **how), np.float64)
    z = (x - MEAN) / SCALES
    np.testing.assert_allclose(np.mean(z, axis=0), 0, atol=0.07)
    np.testing.assert_allclose(np.cov(z.T), COVARIANCE, atol=0.12)
    saveat = diffrax.SaveAt(ts=[SDE.t1, SDE.t0], fn=lambda t, x, args: x)
    paths = np.asarray(sgm.sample(SDE, GAUSSIAN, jr.key(0), 4000, saveat=saveat, **how), np.float64)
    np.testing.assert_allclose(np.std((paths[:, 0] - MEAN) / SCALES, axis=0), 1, atol=0.05)
    np.testing.assert_allclose((paths[:, 1] - x) / SCALES, 0, atol=0.05)
    plain = sgm.sample(SDE, GAUSSIAN, jr.key(0), 4000, saveat=diffrax.SaveAt(ts=[SDE.t1, SDE.t0]), **how)
    # Two compiled functions round numbers of the size of the mean.
    np.testing.assert_allclose((plain - paths) / (SCALES + np.abs(MEAN)), 0, atol=2e-7)


@pytest.mark.slow
def test_gradients_are_the_score_in_raw_units():
    x, (mean, covariance) = raw(4), at_t0(RAW_COVARIANCE, MEAN)
    prior = GAUSSIAN.model.marginal(SDE, SDE.t1)
    gradient = jax.grad(lambda x: sgm.log_prob(SDE, GAUSSIAN, x, trace=sgm.Exact(), prior=prior).sum())(jnp.asarray(x))
    expected = -np.linalg.solve(covariance / np.outer(SCALES, SCALES), ((x - mean) / SCALES).T).T
    np.testing.assert_allclose(gradient * SCALES, expected, atol=2e-2)
    score = jax.vmap(lambda x: GAUSSIAN.score(SDE, SDE.t0, x))(jnp.asarray(x))
    np.testing.assert_allclose(score * SCALES, expected, atol=2e-2)


def test_noised_and_denoised_examples_are_in_raw_units():
    x, t = jnp.asarray(raw(2000)), 0.5
    noised = jax.vmap(lambda x, key: GAUSSIAN.noised(SDE, t, x, key))(x, jr.split(jr.key(0), len(x)))
    alpha, sigma = float(SDE.alpha(t)), float(SDE.sigma(t))
    spread = alpha**2 * COVARIANCE + sigma**2 * np.eye(6)
    np.testing.assert_allclose(np.cov(((noised - MEAN) / SCALES).T), spread, atol=0.15)
    denoised = jax.vmap(lambda x: GAUSSIAN.denoise(SDE, t, x))(noised)
    expected = alpha * COVARIANCE @ np.linalg.solve(spread, np.asarray((noised - MEAN) / SCALES).T)
    np.testing.assert_allclose((denoised - MEAN) / SCALES, expected.T, atol=2e-3)


@pytest.mark.slow
def test_draws_with_their_log_prob():
    x, log_p = sgm.sample_and_log_prob(SDE, GAUSSIAN, jr.key(0), 5, trace=sgm.Exact())
    again = sgm.log_prob(SDE, GAUSSIAN, x, trace=sgm.Exact())
    np.testing.assert_allclose(log_p, again, atol=5e-3)


def test_the_bound_is_in_raw_units():
    chain = sgm.DiscreteChain.at_times(SDE, np.linspace(SDE.t0, SDE.t1, 100))
    x = raw(3)
    standardised = sgm.elbo(chain, GAUSSIAN.model, UNITS.standardise(x), jr.key(0))
    np.testing.assert_allclose(
        sgm.elbo(chain, GAUSSIAN, x, jr.key(0)), standardised - np.sum(np.log(SCALES)), rtol=1e-5
    )
    probability = sgm.likelihood.DiscretisedGaussian(8)
    by_levels = [
        sgm.elbo(chain, model, x, jr.key(0), reconstruction=probability)
        for model, x in ((GAUSSIAN.model, UNITS.standardise(x)), (GAUSSIAN, x))
    ]
    np.testing.assert_allclose(*by_levels, rtol=1e-6)


@pytest.mark.slow
def test_the_accuracy_is_asked_in_raw_units():
    result = sgm.log_prob(SDE, GAUSSIAN, raw(4), jr.key(0), accuracy=0.01, full=True)
    mean, covariance = at_t0(RAW_COVARIANCE, MEAN)
    error = np.abs(result.value - log_normal(raw(4), mean, covariance))
    mismatch = float(np.mean(sgm.prior_mismatch(SDE, UNITS.standardise(raw(4)))))
    assert result.converged.all() and np.all(error < 0.01 + 10 * mismatch)


@pytest.mark.slow
def test_grey_levels_have_the_same_probability_in_all_units():
    model, levels = Gaussian(jnp.zeros(4), 0.3 * jnp.eye(4)), np.array([[0, 100, 200, 255], [128, 127, 3, 4]], np.uint8)
    key, how = jr.key(0), {"count": 256, "trace": sgm.Exact()}
    expected = sgm.likelihood.discrete_log_prob(SDE, model, levels, key, **how)
    in_levels = WithUnits(model, Units.of_levels(256))
    np.testing.assert_array_equal(sgm.likelihood.discrete_log_prob(SDE, in_levels, levels, key, **how), expected)
    ends = {"low": -0.5, "high": 255.5}
    by_ends = sgm.likelihood.discrete_log_prob(SDE, in_levels, levels, key, **how, **ends)
    np.testing.assert_allclose(by_ends, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="are not those of 16 grey levels; pass their count"):
        sgm.likelihood.discrete_log_prob(SDE, in_levels, levels // 16, key, count=16, trace=sgm.Exact())


def test_what_is_known_of_an_example_is_in_raw_units():
    known, mask = jnp.asarray(MEAN + SCALES), jnp.asarray([True, True, False, False, False, False])
    x = sgm.sample(SDE, GAUSSIAN, jr.key(0), 4, method=PosteriorAncestral(Inpainting(known, mask), steps=50))
    np.testing.assert_allclose(((x - MEAN) / SCALES)[:, :2], 1, atol=0.1)


@pytest.mark.slow
def test_units_of_standardised_data_change_nothing():
    bare, wrapped = GAUSSIAN.model, WithUnits(GAUSSIAN.model, Units())
    for call in (
        lambda model: sgm.sample(SDE, model, jr.key(0), 3, method=sgm.DDIM(5)),
        lambda model: sgm.log_prob(SDE, model, jnp.ones(6), trace=sgm.Exact()),
    ):
        np.testing.assert_array_equal(call(bare), call(wrapped))


def test_units_are_never_trained():
    assert jax.tree.leaves(eqx.filter(UNITS, eqx.is_inexact_array)) == []
