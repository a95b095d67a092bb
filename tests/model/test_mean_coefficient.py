import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.model import Gaussian, Learned, MeanCoefficient, WithVariance
from sgm.model.kernel import posterior_mean
from sgm.sde import DiscreteChain, cosine_betas, linear_betas, sohl_dickstein_betas

BETAS = {"linear": linear_betas(1000), "2015": sohl_dickstein_betas(40), "cosine": cosine_betas(50)}
each_chain = pytest.mark.parametrize("name", BETAS)
X, C = np.asarray([0.7, -1.3]), np.asarray([0.2, 0.9])


def levels_of(betas):
    """log tan(theta) at k = 0 ... N, in float64."""
    rates = np.concatenate([[0.0], np.cumsum(-np.log1p(-betas))])
    with np.errstate(divide="ignore"):
        return 0.5 * np.log(np.expm1(rates))


def reverse_mean(chain, s, t):
    """The mean of the reverse transition between two levels, at x = X and the output C."""
    dtype = jnp.result_type(float)
    s, t, x, c = (jnp.asarray(value, dtype) for value in (s, t, X, C))
    estimate = MeanCoefficient(chain).estimate(lambda u: c, t, x)
    return posterior_mean(s, t, x, estimate.denoised)


def many(betas):
    """Steps k, the first and last among them."""
    return np.unique(np.linspace(1, len(betas), 15).astype(int))


@each_chain
def test_the_reverse_mean_is_that_of_2015(float64, name):
    betas, k = BETAS[name], many(BETAS[name])
    levels, beta = levels_of(betas), betas[k - 1][:, None]
    means = jax.jit(jax.vmap(lambda s, t: reverse_mean(DiscreteChain(betas), s, t)))(levels[k - 1], levels[k])
    np.testing.assert_allclose(means, np.sqrt(1 - beta) * X + np.sqrt(beta) * C, rtol=1e-9)


@each_chain
def test_the_reverse_mean_in_single_precision(name):
    betas, k = BETAS[name], many(BETAS[name])
    levels, beta = jnp.asarray(levels_of(betas), jnp.float32), betas[k - 1][:, None]
    means = jax.jit(jax.vmap(lambda s, t: reverse_mean(DiscreteChain(betas), s, t)))(levels[k - 1], levels[k])
    # The kernel knows a step by the difference of two levels, to about four digits, of which beta is small.
    np.testing.assert_allclose(means, np.sqrt(1 - beta) * X + np.sqrt(beta) * C, atol=3e-5)


def test_levels_between_those_of_the_chain_end_steps_as_well(float64):
    betas = BETAS["2015"]
    rates = np.concatenate([[0.0], np.cumsum(-np.log1p(-betas))])
    for t in (1.25, 7.5, 39.9):
        after, before = (np.interp(at, np.arange(41), rates) for at in (t, t - 1))
        beta = -np.expm1(before - after)
        mean = reverse_mean(DiscreteChain(betas), *(0.5 * np.log(np.expm1(rate)) for rate in (before, after)))
        np.testing.assert_allclose(mean, np.sqrt(1 - beta) * X + np.sqrt(beta) * C, rtol=1e-9)


@each_chain
def test_noise_and_x0_by_their_formulas(name):
    betas, k = BETAS[name], many(BETAS[name])
    kept, ratio = np.cumprod(1 - betas)[k - 1], np.sqrt((1 - betas[k - 1]) / betas[k - 1])
    cos, sin = np.sqrt(kept), np.sqrt(1 - kept)
    prediction = MeanCoefficient(DiscreteChain(betas))
    u, c = (jnp.asarray(value, jnp.float32) for value in (X, C))
    levels = jnp.asarray(np.log(sin / cos), jnp.float32)
    estimate = jax.vmap(lambda level: prediction.estimate(lambda u: c, level, u))(levels)
    noise = sin[:, None] * (X - ratio[:, None] * C)
    for found, expected in (
        (estimate.noise, noise),
        (estimate.denoised, (X - sin[:, None] * noise) / cos[:, None]),
        (estimate.velocity, -(sin / cos * ratio)[:, None] * C),
    ):
        error = np.abs(found - expected) / (1 + np.abs(expected))
        assert np.all(error < 2e-7 / np.minimum(cos, 0.1)[:, None])


@each_chain
def test_the_right_coefficient_gives_the_exact_estimate(float64, name):
    betas, k = BETAS[name], many(BETAS[name])
    mean, std = np.asarray([0.3, -0.2]), np.asarray([0.1, 1.5])
    model = Gaussian(jnp.asarray(mean), jnp.diag(jnp.asarray(std**2)))
    prediction = MeanCoefficient(DiscreteChain(betas))
    for step in k:
        beta, kept, before = betas[step - 1], np.prod(1 - betas[:step]), np.prod(1 - betas[: step - 1])
        # E[x_(k-1) | x_k] of jointly Gaussian variables, by regression.
        variances = [alpha**2 * std**2 + 1 - alpha**2 for alpha in (np.sqrt(before), np.sqrt(kept))]
        gain = np.sqrt(1 - beta) * variances[0] / variances[1]
        reverse = np.sqrt(before) * mean + gain * (X - np.sqrt(kept) * mean)
        coefficient = jnp.asarray((reverse - np.sqrt(1 - beta) * X) / np.sqrt(beta))
        level = jnp.asarray(0.5 * np.log((1 - kept) / kept))
        found = prediction.estimate(lambda u, c=coefficient: c, level, jnp.asarray(X))
        exact = model.predict(level, jnp.asarray(X))
        for field in ("denoised", "noise", "velocity"):
            np.testing.assert_allclose(getattr(found, field), getattr(exact, field), rtol=1e-6, atol=1e-8)


def test_no_coefficient_is_isotropic_gaussian_data():
    level, u = jnp.asarray(0.2), jnp.asarray(X, jnp.float32)
    found = MeanCoefficient(DiscreteChain(BETAS["2015"])).estimate(jnp.zeros_like, level, u)
    exact = Gaussian(jnp.zeros(2), jnp.eye(2)).predict(level, u)
    for field in ("denoised", "noise", "velocity"):
        np.testing.assert_allclose(getattr(found, field), getattr(exact, field), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", [-9.0, 9.0])
def test_levels_beyond_the_chain_are_finite(level):
    prediction = MeanCoefficient(DiscreteChain(BETAS["2015"]))
    u = jnp.ones(2)

    def velocity(level):
        return prediction.estimate(lambda u: u, level, u).velocity

    value, slope = jax.jit(lambda level: jax.jvp(velocity, (level,), (jnp.ones(()),)))(jnp.asarray(level))
    first, last = (np.sqrt((1 - beta) / beta) for beta in BETAS["2015"][[0, -1]])
    np.testing.assert_allclose(value, -np.exp(level) * (first if level < 0 else last), rtol=1e-3)
    assert bool(jnp.all(jnp.isfinite(slope)))


def test_the_betas_are_no_parameters():
    assert jax.tree.leaves(MeanCoefficient(DiscreteChain(BETAS["2015"]))) == []


class TestModelOf2015:
    """`ConvDense`, `MeanCoefficient`, `Learned`: the network and the parameterisation together."""

    chain = DiscreteChain(BETAS["2015"])
    shape = (8, 8, 1)

    def model(self):
        network = sgm.nn.ConvDense(
            self.shape,
            convolutions=1,
            width=4,
            dense_width=8,
            bumps=4,
            noise_levels=-self.chain.log_snr(np.arange(1, 41)) / 2,
            key=jr.key(0),
        )
        return sgm.ScoreModel(network, WithVariance(MeanCoefficient(self.chain)), shape=self.shape)

    def test_the_halves_of_the_output_are_mean_and_variance(self):
        bias = jnp.repeat(jnp.asarray([0.5, -2.0]), 4)  # of four bumps each
        model = eqx.tree_at(lambda model: model.network.outlet.bias, self.model(), bias)
        k, u = 11, jr.normal(jr.key(1), self.shape)
        s, t = (jnp.asarray(level, jnp.float32) for level in levels_of(BETAS["2015"])[[k - 1, k]])
        estimate = eqx.filter_jit(model.predict)(self.chain.level(k), u)
        beta = BETAS["2015"][k - 1]
        np.testing.assert_allclose(
            posterior_mean(s, t, u, estimate.denoised), np.sqrt(1 - beta) * u + np.sqrt(beta) * 0.5, atol=2e-5
        )
        expected = 1 / (1 + (1 - beta) / beta * np.exp(2 / np.sqrt(40)))
        np.testing.assert_allclose(jnp.exp(Learned(40).log_variance(s, t, estimate)), expected, rtol=1e-4)

    @pytest.mark.slow
    def test_a_new_model_samples_isotropic_gaussian_data(self):
        method = sgm.Ancestral(39, variance=Learned(40))
        x = sgm.sample(self.chain, self.model(), jr.key(2), 64, method=method)
        assert float(x.std()) == pytest.approx(1, abs=0.05) and float(jnp.abs(x.mean())) < 0.05

    @pytest.mark.slow
    def test_gradients_are_finite_in_a_jitted_batch(self):
        u = jr.normal(jr.key(3), (4, *self.shape))
        levels = self.chain.level(jnp.asarray([1.0, 2.5, 20.0, 40.0]))

        @eqx.filter_jit
        @eqx.filter_grad
        def gradient(model):
            estimate = jax.vmap(model.predict)(levels, u)
            return jnp.sum(estimate.noise**2) + jnp.sum((estimate.log_variance - 1) ** 2)

        found = gradient(self.model())
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))
        assert bool(jnp.any(found.network.outlet.kernel != 0))
