import dataclasses
import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian

import sgm
from sgm.model import FixedLarge, FixedSmall, Given, Interpolated, Learned, WithVariance
from sgm.model.kernel import cos_of, posterior_mean, sin_of
from sgm.sde import DiscreteChain, linear_betas

# Levels l = log tan(theta), each pair s < t.
PAIRS = [(-6.9, -6.89), (-3.0, 0.5), (0.0, 0.01), (1.0, 4.6)]
ESTIMATE = gaussian(2).predict(jnp.asarray(0.7), jnp.asarray([0.3, -0.2]))


def posterior(s, t, u, x0):
    """Mean and variance of q(u_s | u_t, x0) by Bayes' rule, in float64."""
    (cos_s, sin_s), (cos_t, _) = ((math.cos(angle), math.sin(angle)) for angle in map(math.atan, map(math.exp, (s, t))))
    scale, variance = cos_t / cos_s, 1 - (cos_t / cos_s) ** 2  # of u_t given u_s
    precision = scale**2 / variance + 1 / sin_s**2
    return (scale * u / variance + cos_s * x0 / sin_s**2) / precision, 1 / precision, variance


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_the_kernel_is_bayes_rule(s, t):
    mean, small, large = posterior(s, t, 0.8, -0.3)
    levels = jnp.asarray(s), jnp.asarray(t)
    np.testing.assert_allclose(posterior_mean(*levels, jnp.asarray(0.8), jnp.asarray(-0.3)), mean, rtol=1e-4)
    # A step's share of the variance is the small difference of two levels, with three digits or more.
    np.testing.assert_allclose(jnp.exp(FixedSmall().log_variance(*levels, ESTIMATE)), small, rtol=1e-3)
    np.testing.assert_allclose(jnp.exp(FixedLarge().log_variance(*levels, ESTIMATE)), large, rtol=1e-3)


def test_variances_of_a_chain_are_those_of_its_paper():
    betas = linear_betas(1000)
    kept, k = np.cumprod(1 - betas), np.asarray([2, 10, 488, 1000])
    t, s = (-0.5 * DiscreteChain(betas).log_snr(jnp.asarray(at, jnp.float32)) for at in (k, k - 1))
    small = betas[k - 1] * (1 - kept[k - 2]) / (1 - kept[k - 1])
    for kind, expected in ((FixedSmall(), small), (FixedLarge(), betas[k - 1])):
        log_variance = jax.vmap(lambda s, t, kind=kind: kind.log_variance(s, t, ESTIMATE))(s, t)
        np.testing.assert_allclose(jnp.exp(log_variance), expected, rtol=2e-4)


def test_levels_keep_the_digits_of_both_ends():
    levels = np.linspace(-9, 9, 50)
    theta = np.arctan(np.exp(levels))
    for function, expected in ((sin_of, np.sin(theta)), (cos_of, np.cos(theta))):
        np.testing.assert_allclose(jax.vmap(function)(jnp.asarray(levels, jnp.float32)), expected, rtol=2e-6)


def test_the_last_step_leaves_x0():
    x0 = jnp.asarray([0.4, -0.7])
    mean = posterior_mean(jnp.asarray(-jnp.inf), jnp.asarray(-2.0), jnp.asarray([0.1, 0.2]), x0)
    np.testing.assert_array_equal(mean, x0)


def test_a_second_output_moves_the_variance():
    s, t = jnp.asarray(-1.0), jnp.asarray(-0.7)
    small, large = (kind.log_variance(s, t, ESTIMATE) for kind in (FixedSmall(), FixedLarge()))
    second = dataclasses.replace(ESTIMATE, log_variance=jnp.asarray([-1.0, 1.0]))
    np.testing.assert_allclose(Interpolated().log_variance(s, t, second), jnp.stack([small, large]), rtol=1e-6)
    beta, shift = np.exp(np.float64(large)), np.asarray([-1.0, 1.0]) / 10
    expected = 1 / (1 + (1 - beta) / beta * np.exp(-shift))
    np.testing.assert_allclose(jnp.exp(Learned(100).log_variance(s, t, second)), expected, rtol=1e-5)


def test_a_given_variance_is_the_second_output():
    second = dataclasses.replace(ESTIMATE, log_variance=jnp.asarray([0.02, -0.1]))
    log_variance = Given().log_variance(jnp.asarray(-1.0), jnp.asarray(-0.7), second)
    np.testing.assert_allclose(log_variance, [np.log(0.02), np.nan], rtol=1e-6)


@pytest.mark.parametrize("kind", [Interpolated(), Learned(), Given()])
def test_a_missing_second_output_is_named(kind):
    with pytest.raises(ValueError, match=f"{type(kind).__name__}: the model has no second output for the variance"):
        kind.log_variance(jnp.asarray(-1.0), jnp.asarray(0.0), ESTIMATE)


def test_a_network_has_a_second_output():
    def network(level, u, cond, key=None):
        return jnp.concatenate([2 * u, u - 1], axis=-1)

    model = sgm.ScoreModel(network, WithVariance(sgm.model.Velocity()), shape=(4, 3))
    plain = sgm.ScoreModel(lambda level, u, cond, key=None: 2 * u, sgm.model.Velocity(), shape=(4, 3))
    u = jr.normal(jr.key(0), (4, 3))
    estimate, expected = (m.predict(jnp.asarray(0.4), u) for m in (model, plain))
    np.testing.assert_array_equal(estimate.log_variance, u - 1)
    np.testing.assert_array_equal(estimate.denoised, expected.denoised)
    assert expected.log_variance is None


def test_clipping_keeps_the_estimate_one_of_a_path():
    model, theta, u = gaussian(2), jnp.asarray(0.9), jnp.asarray([2.0, -0.1])
    level = jnp.log(jnp.tan(theta))
    plain, clipped = (m.predict(level, u) for m in (model, sgm.model.Clipped(model, low=-0.5, high=0.5)))
    inside = np.abs(plain.denoised) <= 0.5
    assert inside.any() != inside.all()
    np.testing.assert_array_equal(clipped.denoised, jnp.clip(plain.denoised, -0.5, 0.5))
    np.testing.assert_array_equal(clipped.noise[inside], plain.noise[inside])
    np.testing.assert_allclose(jnp.cos(theta) * clipped.denoised + jnp.sin(theta) * clipped.noise, u, rtol=1e-5)
    velocity = jnp.cos(theta) * clipped.noise - jnp.sin(theta) * clipped.denoised
    np.testing.assert_allclose(clipped.velocity, velocity, rtol=1e-5)
