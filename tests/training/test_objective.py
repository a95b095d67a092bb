import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian

import sgm
from sgm.likelihood import DiscretisedGaussian, Flat
from sgm.model import Clipped, FixedLarge, Gaussian, Interpolated
from sgm.sde import DiscreteChain, cos_of, linear_betas, sin_of
from sgm.training.objective import Absolute, Bound, Hybrid, Squared
from sgm.training.times import ChainSteps
from sgm.training.weightings import LikelihoodWeighting, UniformWeighting

CHAIN = DiscreteChain(linear_betas(30, 1e-3, 0.3))
ON_CHAIN = {"weighting": UniformWeighting(), "times": ChainSteps()}


def mean_loss(model, x, objective, draws=4000):
    def loss(key):
        return sgm.score_matching_loss(CHAIN, model, x, key, objective=objective, **ON_CHAIN)

    values = np.asarray(jax.jit(jax.vmap(loss))(jr.split(jr.key(1), draws)))
    return values.mean(), values.std() / draws**0.5


def test_steps_of_the_chain_are_drawn_evenly():
    k = ChainSteps().quantile(CHAIN, (jnp.arange(3000.0) + 0.5) / 3000)
    np.testing.assert_array_equal(np.unique(k, return_counts=True), [np.arange(1, 31), np.full(30, 100)])
    assert float(ChainSteps().quantile(CHAIN, jnp.zeros(()))) == 1


@pytest.mark.parametrize("reconstruction", [Flat(), DiscretisedGaussian(8)], ids=lambda rule: type(rule).__name__)
def test_the_loss_of_the_bound_is_the_bound(reconstruction):
    model, x = gaussian(2), jnp.asarray([[0.375, -0.625]] * 30)
    options = {"variance": FixedLarge(), "reconstruction": reconstruction}
    value, stderr = mean_loss(model, x, Bound(**options))
    bound = sgm.elbo(CHAIN, model, x[:1], jr.key(2), draws=4000, full=True, **options)
    expected = -float(bound.value[0] + bound.prior[0]) / 2
    assert abs(value - expected) < 4 * math.hypot(stderr, float(bound.stderr[0]) / 2)


def test_absolute_errors_are_those_of_the_noise():
    """For data N(0, s^2) the noise's posterior is normal, of variance cos^2 s^2 / (cos^2 s^2 + sin^2)."""
    model, std = Gaussian(jnp.zeros(4), 0.25 * jnp.eye(4)), 0.5

    def loss(key):
        key_x, key_loss = jr.split(key)
        x = model.sample(key_x, 60)
        return sgm.score_matching_loss(CHAIN, model, x, key_loss, objective=Absolute(), **ON_CHAIN)

    values = np.asarray(jax.jit(jax.vmap(loss))(jr.split(jr.key(3), 500)))
    kept = np.cumprod(1 - CHAIN.betas.values)
    expected = np.mean(np.sqrt(2 / np.pi * kept * std**2 / (kept * std**2 + 1 - kept)))
    assert abs(values.mean() - expected) < 4 * values.std() / 500**0.5


def test_the_hybrid_trains_the_mean_by_squares_and_the_variance_by_the_bound():
    level, x0, noise = CHAIN.level(jnp.asarray(7.0)), jnp.asarray([0.3, -0.2]), jnp.asarray([1.0, 0.4])
    estimate = gaussian(2).predict(level, cos_of(level) * x0 + sin_of(level) * noise)
    estimate = dataclasses.replace(estimate, log_variance=jnp.asarray([0.1, -0.3]))
    bound = Bound(Interpolated())

    def gradient(objective):
        return jax.jit(jax.grad(lambda estimate: objective.error(CHAIN, level, x0, noise, estimate)))(estimate)

    hybrid, squared, by_bound = (gradient(objective) for objective in (Hybrid(bound), Squared(), bound))
    np.testing.assert_allclose(hybrid.log_variance, 1e-3 * by_bound.log_variance, rtol=1e-6)
    np.testing.assert_array_equal(hybrid.velocity, squared.velocity)
    np.testing.assert_array_equal(hybrid.denoised, squared.denoised)
    assert np.abs(by_bound.denoised).max() > 0


def test_every_level_has_a_finite_gradient():
    estimate = gaussian(2).predict(jnp.asarray(0.3), jnp.ones(2))
    objective = Bound(FixedLarge())
    for k in (1.0, 2.0, 30.0):
        level = CHAIN.level(jnp.asarray(k))
        error = functools.partial(objective.error, CHAIN, level, jnp.ones(2), jnp.ones(2))
        gradient = jax.grad(error)(estimate)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("sde", "objective", "options", "message"),
    [
        (
            sgm.VP(),
            Squared(),
            {"times": ChainSteps()},
            "ChainSteps: they are a chain's own, but the loss is of VP",
        ),
        (
            CHAIN,
            Bound(),
            {},
            "Bound: its terms are .* of DiscreteChain, UniformWeighting and UniformTime;",
        ),
        (CHAIN, Bound(), {**ON_CHAIN, "weighting": LikelihoodWeighting()}, "LikelihoodWeighting and ChainSteps;"),
        (sgm.VP(), Bound(), {}, "Bound: its terms are those of a chain's steps, but the loss is of VP,"),
        (sgm.VP(), Hybrid(), {}, "Hybrid: its terms are those of a chain's steps"),
    ],
)
def test_a_loss_that_is_not_the_bounds_is_refused(sde, objective, options, message):
    with pytest.raises(ValueError, match=message):
        sgm.score_matching_loss(sde, gaussian(2), jnp.zeros((4, 2)), jr.key(0), objective=objective, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Hybrid(Bound()),
            "Hybrid: the variance is FixedLarge, with nothing to train; pass a",
        ),
        (lambda: DiscretisedGaussian(0), "DiscretisedGaussian: count = 0; pass count >= 1"),
        (lambda: Clipped(gaussian(2), 1.0, -1.0), "Clipped: low = 1.0, high = -1.0; pass low < high"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
