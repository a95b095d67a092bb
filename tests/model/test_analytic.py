import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import FOUR, PROCESSES, gaussian, mixture

import sgm
from sgm.model import Empirical, Gaussian, GaussianMixture

POINTS = jnp.asarray([[1.0, 0.0], [-1.0, 0.5], [0.2, -0.8]])


MODELS = {"gaussian": gaussian(2), "mixture": mixture(2), "empirical": Empirical(POINTS)}


@pytest.mark.slow_except("gaussian-VE", "mixture-VP")
@pytest.mark.parametrize("process", FOUR)
@pytest.mark.parametrize("name", MODELS)
def test_score_is_the_gradient_of_the_marginal(process, name):
    sde, model = PROCESSES[process], MODELS[name]
    scores = jax.jit(jax.vmap(lambda t, x: model.score(sde, t, x), (None, 0)))
    gradients = jax.jit(jax.vmap(jax.grad(lambda x, marginal: marginal.log_prob(x)), (0, None)))
    for fraction in (0.2, 0.5, 0.9):
        t = sde.t0 + fraction * (sde.t1 - sde.t0)
        marginal = model.marginal(sde, t)
        x = marginal.sample(jr.key(0), 20)
        np.testing.assert_allclose(scores(t, x), gradients(x, marginal), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("theta", [1e-3, 0.3, 1.2, 1.5607])
def test_estimates_obey_the_geometry_of_the_path(name, theta):
    model = MODELS[name]
    x0 = model.sample(jr.key(1), 50)
    u = np.cos(theta) * x0 + np.sin(theta) * jr.normal(jr.key(2), x0.shape)
    estimate = jax.jit(jax.vmap(lambda u: model.predict(jnp.log(jnp.tan(theta)), u)))(u)
    cos, sin = np.cos(theta), np.sin(theta)
    np.testing.assert_allclose(cos * u - sin * estimate.velocity, estimate.denoised, atol=2e-5)
    np.testing.assert_allclose(sin * u + cos * estimate.velocity, estimate.noise, atol=2e-5)


def test_velocity_does_not_cancel_at_small_noise():
    model = Gaussian(jnp.asarray([0.3, -0.2]), jnp.asarray([[0.5, 0.2], [0.2, 0.3]]))
    u = jnp.asarray([1.1, 0.4])
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), model)
        truth = double.predict(jnp.asarray(-7.0, jnp.float64), jnp.asarray(u, jnp.float64))
    single = model.predict(jnp.asarray(-7.0), u)
    np.testing.assert_allclose(single.velocity, truth.velocity, rtol=1e-5)
    np.testing.assert_allclose(single.noise, truth.noise, rtol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_marginal_samples_have_its_density(name):
    sde, model = PROCESSES["VP"], MODELS[name]
    marginal = model.marginal(sde, 0.2)
    direct = marginal.sample(jr.key(3), 20_000)
    noised = sde.alpha(0.2) * model.sample(jr.key(4), 20_000) + sde.sigma(0.2) * jr.normal(jr.key(5), (20_000, 2))
    np.testing.assert_allclose(jnp.mean(direct, 0), jnp.mean(noised, 0), atol=0.03)
    np.testing.assert_allclose(jnp.cov(direct.T), jnp.cov(noised.T), atol=0.03)
    log_probs = jax.jit(jax.vmap(marginal.log_prob))
    entropies = [-jnp.mean(log_probs(x)) for x in (direct, noised)]
    np.testing.assert_allclose(*entropies, atol=0.03)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_density_integrates_to_one(name):
    ticks = jnp.linspace(-6, 6, 1201)
    grid = jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    total = jnp.exp(jax.jit(jax.vmap(MODELS[name].log_prob))(grid)).sum() * 0.01**2
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_weights_sum_to_one():
    with pytest.raises(ValueError, match=r"GaussianMixture: the weights sum to 2.0; pass weights that sum to 1"):
        GaussianMixture(jnp.zeros((2, 1)), jnp.ones(2), jnp.ones(2))


def test_shapes_of_images():
    model = Gaussian(jnp.zeros((2, 3, 1)), jnp.eye(6))
    assert model.shape == (2, 3, 1)
    assert model.sample(jr.key(0), 4).shape == (4, 2, 3, 1)
    assert model.predict(jnp.asarray(0.5), jnp.ones((2, 3, 1))).velocity.shape == (2, 3, 1)


def test_a_gaussian_in_other_units_is_the_same_distribution():
    scale = jnp.asarray([1e3, 1.0, 1e-2])
    exact = Gaussian(
        scale * gaussian(12).mean.reshape(2, 2, 3), jnp.outer(*[jnp.tile(scale, 4)] * 2) * gaussian(12).cov
    )
    units = sgm.Units(jnp.asarray([-5e2, 2.0, 0.0]), 1.5 * scale)
    model = exact.in_units(units)
    assert model.shape == (2, 2, 3) and eqx.tree_equal(model.units, units)
    np.testing.assert_allclose(model.model.mean, units.standardise(exact.mean), rtol=1e-6)
    # Of the covariance in the units of the data, eigenvalues of 1e-4 beside 1e6 would have no digit.
    np.testing.assert_allclose(model.model.cov, gaussian(12).cov / 1.5**2, rtol=1e-5)
    np.testing.assert_allclose(model.model.eigenvalues, jnp.linalg.eigvalsh(gaussian(12).cov) / 1.5**2, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"Gaussian.in_units: the units have shape \(2,\), but the examples \(2, 2, 3\)"
    ):
        exact.in_units(sgm.Units(jnp.zeros(2), jnp.ones(2)))


@pytest.mark.usefixtures("types_unchecked")
def test_units_that_are_none_are_named():
    with pytest.raises(TypeError, match=r"Gaussian.in_units: units is a Gaussian; pass an instance such as mode"):
        gaussian(2).in_units(gaussian(2))
