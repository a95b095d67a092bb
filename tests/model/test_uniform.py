import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from truth import FOUR, PROCESSES

import sgm
from sgm.model import NoisedUniform, Uniform

LOW, HIGH = -0.5, 2.0
PRIOR = Uniform(jnp.asarray([LOW]), jnp.asarray([HIGH]))
TWO = Uniform(jnp.asarray([-0.5, 1.0]), jnp.asarray([2.0, 1.5]))
EPS = float(jnp.finfo(jnp.float32).eps)


def by_quadrature(level, u):
    """E[x0 | u], E[noise | u] and the variance of x0 given u by Simpson's rule in double precision around the mode."""
    cos, sin = 1 / np.sqrt(1 + np.exp(2.0 * level)), 1 / np.sqrt(1 + np.exp(-2.0 * level))
    mode = np.clip(u / cos, LOW, HIGH)
    kappa, apart = cos / sin, (u - np.clip(u, cos * LOW, cos * HIGH)) / sin
    reach = 50 / (kappa * max(abs(apart), 1))  # the integrand is below exp(-50) there
    r = np.linspace(max(mode - HIGH, -reach), min(mode - LOW, reach), 100_001)
    density = np.exp(-kappa * r * (apart + kappa * r / 2))
    mass, first, second = (scipy.integrate.simpson(density * r**power, x=r) for power in (0, 1, 2))
    offset = first / mass
    return mode - offset, apart + kappa * offset, second / mass - offset**2


@jax.jit
def estimates_and_slopes(level, u):
    """Of several u, under the prior in one dimension, with the derivatives of E[x0 | u]."""
    slope = jax.grad(lambda u: PRIOR.predict(level, u[None]).denoised[0])
    return jax.vmap(lambda u: (PRIOR.predict(level, u[None]), slope(u)))(u)


@jax.jit
def log_probs_and_scores(marginal, x):
    return jax.vmap(jax.value_and_grad(lambda x: marginal.log_prob(x)))(x)


@pytest.mark.parametrize("level", [-20.0, -12.0, -6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 12.0, 20.0])
def test_estimates_are_those_of_a_quadrature(level):
    cos, sin = 1 / np.sqrt(1 + np.exp(2 * level)), 1 / np.sqrt(1 + np.exp(-2 * level))
    inside = cos * np.linspace(LOW + 1e-3, HIGH - 1e-3, 9)
    outside = [place for far in (0.01, 1.0, 30.0, 1e4) for place in (cos * HIGH + far, cos * LOW - far)]
    near = [cos * HIGH + far * sin for far in (-2.0, -0.5, 0.5, 2.0, 6.0)]
    u = jnp.asarray(np.concatenate([inside, outside, near]), jnp.float32)
    estimate, slopes = estimates_and_slopes(jnp.asarray(level), u)
    truth = np.asarray([by_quadrature(level, float(place)) for place in u])
    # u has a rounding of its own, of so many standard deviations of the noise, to which e moves by as much.
    rounding = 4 * EPS * (np.abs(u) + cos * (HIGH - LOW)) / sin
    denoised, noise = estimate.denoised[:, 0], estimate.noise[:, 0]
    assert np.all(np.abs(noise - truth[:, 1]) < 1e-6 + 2e-6 * np.abs(truth[:, 1]) + rounding)
    # of which x0 moves by its standard deviation, at most
    assert np.all(np.abs(denoised - truth[:, 0]) < 1e-6 + np.sqrt(truth[:, 2]) * rounding)
    assert np.all((denoised >= LOW) & (denoised <= HIGH))
    velocity = cos * truth[:, 1] - sin * truth[:, 0]
    assert np.all(np.abs(estimate.velocity[:, 0] - velocity) < 2e-6 + 2e-6 * np.abs(truth[:, 1]) + cos * rounding)
    expected = cos / sin**2 * truth[:, 2]
    assert np.all(np.abs(slopes - expected) < (2e-5 + 10 * rounding) * expected)


def test_far_from_the_box_the_estimate_has_digits_beside_its_end():
    """E[x0 | u] = high - tan / e to leading order, where high - tan e + tan e would be 0."""
    far = jnp.asarray([1e4])
    level = jnp.asarray(-2.0)
    tan, e = float(jnp.exp(level)), 1e4 / float(sgm.sde.sin_of(level))
    assert HIGH - float(PRIOR.predict(level, far).denoised[0]) == pytest.approx(tan / e, abs=EPS * HIGH)
    assert float(PRIOR.predict(level, far).noise[0]) == pytest.approx(e, rel=1e-3)


def test_pure_noise_tells_nothing():
    estimate = TWO.predict(jnp.asarray(jnp.inf), jnp.asarray([0.3, -40.0]))
    np.testing.assert_allclose(estimate.denoised, [0.75, 1.25], rtol=1e-6)
    np.testing.assert_allclose(estimate.noise, [0.3, -40.0], rtol=1e-6)
    np.testing.assert_allclose(estimate.velocity, [-0.75, -1.25], rtol=1e-6)


@pytest.mark.slow_except("VP", "VE")
@pytest.mark.parametrize("process", FOUR)
def test_score_is_the_gradient_of_the_marginal(process):
    sde = PROCESSES[process]
    scores = jax.jit(jax.vmap(lambda t, x: TWO.score(sde, t, x), (None, 0)))
    for fraction in (0.05, 0.3, 0.9):
        t = sde.t0 + fraction * (sde.t1 - sde.t0)
        marginal = TWO.marginal(sde, t)
        x = jnp.concatenate([marginal.sample(jr.key(0), 20), 2 * marginal.sample(jr.key(1), 20)])
        _, expected = log_probs_and_scores(marginal, x)
        np.testing.assert_allclose(scores(t, x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("std", [1e-3, 0.2, 3.0])
def test_the_noised_density_is_a_difference_of_normal_distributions(std):
    marginal = NoisedUniform(TWO.low, TWO.high, jnp.full(2, std))
    x = np.asarray(marginal.sample(jr.key(2), 50), np.float64)
    ends = [scipy.stats.norm.cdf((x - end) / std) for end in (TWO.low, TWO.high)]
    expected = np.log((ends[0] - ends[1]) / np.asarray(TWO.high - TWO.low)).sum(axis=1)
    kept = np.isfinite(expected)
    found = np.asarray(log_probs_and_scores(marginal, jnp.asarray(x, jnp.float32))[0])
    # An edge that is a standard deviation wide moves log p by the rounding of x over it.
    np.testing.assert_allclose(found[kept], expected[kept], atol=1e-5 + 10 * EPS / std)


def test_the_noised_density_keeps_its_digits_where_the_distributions_differ_by_none():
    marginal = NoisedUniform(PRIOR.low, PRIOR.high, jnp.full(1, 0.1))
    (found,), (score,) = log_probs_and_scores(marginal, jnp.asarray([[12.0]]))
    logs = [scipy.stats.norm.logcdf(-(12.0 - end) / 0.1) for end in (HIGH, LOW)]
    expected = logs[0] + np.log1p(-np.exp(logs[1] - logs[0])) - np.log(HIGH - LOW)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(score[0]) == pytest.approx(-10.0 / 0.1**2, rel=1e-3)


def test_a_noised_uniform_is_a_model_whose_marginals_are_those_of_the_uniform():
    sde, t = sgm.VP(), 0.3
    first = TWO.marginal(sde, 0.1)
    scale, std = sde.transition(jnp.asarray(0.1), jnp.asarray(t))
    on = NoisedUniform(scale * first.low, scale * first.high, jnp.sqrt(scale**2 * first.std**2 + std**2))
    x = TWO.marginal(sde, t).sample(jr.key(3), 20)
    found, expected = (log_probs_and_scores(marginal, x)[0] for marginal in (on, TWO.marginal(sde, t)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    score = jax.jit(jax.vmap(lambda x: first.score(sde, t, x)))(x)
    np.testing.assert_allclose(score, log_probs_and_scores(first.marginal(sde, t), x)[1], rtol=1e-3, atol=1e-3)


def test_at_pure_noise_the_marginal_is_the_noise():
    sde = sgm.VP(sgm.sde.Cosine(ratio_max=jnp.inf))
    x = jnp.asarray([0.3, -2.0])
    (found,), (slope,) = log_probs_and_scores(TWO.marginal(sde, sde.t1), x[None])
    assert float(found) == pytest.approx(float(scipy.stats.norm.logpdf(np.asarray(x)).sum()), rel=1e-5)
    np.testing.assert_allclose(slope, -x, rtol=1e-5)


def test_the_box_itself():
    inside, edge, outside = jnp.asarray([0.0, 1.2]), jnp.asarray([2.0, 1.0]), jnp.asarray([0.0, 1.6])
    assert [bool(TWO.contains(x)) for x in (inside, edge, outside)] == [True, True, False]
    assert float(TWO.log_prob(inside)) == pytest.approx(-np.log(2.5 * 0.5), rel=1e-6)
    assert float(TWO.log_prob(outside)) == -np.inf
    x = TWO.sample(jr.key(0), 20_000)
    assert x.shape == (20_000, 2) and bool(jnp.all(jax.vmap(TWO.contains)(x)))
    for place in range(2):
        low, high = float(TWO.low[place]), float(TWO.high[place])
        assert scipy.stats.kstest(np.asarray(x[:, place]), "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.slow
def test_draws_of_the_reverse_process_are_uniform():
    x = sgm.sample(sgm.VP(), PRIOR, jr.key(4), 4000, method=sgm.DDIM(200))[:, 0]
    assert scipy.stats.kstest(np.asarray(x), "uniform", (LOW, HIGH - LOW)).pvalue > 1e-3


def test_a_uniform_in_other_units_is_the_same_distribution():
    units = sgm.Units(jnp.asarray([30.0, -2.0]), jnp.asarray([100.0, 1e-3]))
    model = TWO.in_units(units)
    assert isinstance(model.model, Uniform) and model.units is units
    np.testing.assert_allclose(model.model.low, [-0.305, 3000.0], rtol=1e-6)
    np.testing.assert_allclose(model.model.high, [-0.28, 3500.0], rtol=1e-6)
    inside = jnp.asarray([0.0, 1.2])
    found = model.model.log_prob(units.standardise(inside)) - units.log_volume((2,))
    assert float(found) == pytest.approx(float(TWO.log_prob(inside)), rel=1e-5)
    with pytest.raises(ValueError, match=r"Uniform.in_units: the units have shape \(3,\), but the examples \(2,\)"):
        TWO.in_units(sgm.Units(jnp.zeros(3), jnp.ones(3)))


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize("given", [tuple, list, np.asarray, jnp.asarray], ids=["tuple", "list", "NumPy", "JAX"])
def test_ends_are_any_numbers(given, recwarn):
    low, high = given([0, -1]), given([5.5, 1.0])
    made = Uniform(low, high)
    assert made.shape == (2,) and made.low.dtype == made.high.dtype == made.sample(jr.key(0), 1).dtype == jnp.float32
    assert float(made.log_prob(jnp.zeros(2))) == pytest.approx(-np.log(11.0), rel=1e-6) and not recwarn.list


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (jnp.zeros(2), jnp.asarray([1.0, 0.0]), "Uniform: low = .* is not below high = .*; pass low < high"),
        (jnp.zeros(2), jnp.ones(3), r"Uniform: low has shape \(2,\), but high \(3,\); pass ends of one shape"),
        ((0.0, -np.inf), (1.0, 1.0), r"Uniform: low = .* and high = .* are not all finite; pass finite ends"),
        ((0.0, 0.0), (1.0, np.nan), "Uniform: low = .* and high = .* are not all finite; pass finite ends"),
    ],
)
@pytest.mark.usefixtures("types_unchecked")
def test_wrong_ends_are_named(low, high, message):
    with pytest.raises(ValueError, match=message):
        Uniform(low, high)
