import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats
from truth import bound_gap, drawn_bound_gap, even_chain, gaussian

import sgm
from sgm.likelihood import DiscretisedGaussian
from sgm.model import FixedLarge, FixedSmall, Gaussian, Interpolated, WithVariance
from sgm.sde import DiscreteChain, cosine_betas, linear_betas

MODEL = gaussian(2)
FIXED = pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()], ids=lambda variance: type(variance).__name__)
MOSTLY_SMALL = pytest.mark.slow_except("FixedSmall")


@MOSTLY_SMALL
@FIXED
def test_the_bound_is_below_the_truth_by_the_closed_form(variance):
    chain = even_chain(5)
    gap, stderr = drawn_bound_gap(chain, MODEL, variance, jr.key(1), 40_000)
    expected = bound_gap(chain, MODEL, variance)
    assert stderr < 0.02 * expected
    assert abs(gap - expected) < 4 * stderr


@pytest.mark.slow
@FIXED
def test_the_closed_form_falls_as_one_over_the_steps(variance):
    """For centred data, whose prior at t1 is as good as exact."""
    model = Gaussian(jnp.zeros(2), jnp.diag(MODEL.eigenvalues))
    coarse, fine = (bound_gap(even_chain(steps), model, variance) for steps in (640, 1280))
    assert abs(math.log2(coarse / fine) - 1) < 0.01


@FIXED
def test_each_term_is_that_of_the_closed_form(variance):
    """One dimension, data N(0, s^2) and the model of them: every divergence is a quadratic in x0, in float64."""
    chain, data, x0 = DiscreteChain(np.asarray([0.05, 0.2, 0.4, 0.6])), 0.49, 0.8
    model = Gaussian(jnp.zeros(1), jnp.asarray([[data]]))
    result = sgm.elbo(chain, model, jnp.full((1, 1), x0), jr.key(2), variance=variance, draws=20_000, full=True)
    kept = np.cumprod(1 - chain.betas.values)
    expected = []
    for s, t, beta in zip(kept[:-1], kept[1:], chain.betas.values[1:], strict=True):
        small = beta * (1 - s) / (1 - t)
        used = small if isinstance(variance, FixedSmall) else beta
        shrink = np.sqrt(t) * data / (t * data + 1 - t)
        # E (x0 - denoised)^2, for x_t = sqrt(t) x0 + sqrt(1 - t) noise
        error = (x0 * (1 - shrink * np.sqrt(t))) ** 2 + shrink**2 * (1 - t)
        gap = (np.sqrt(s) * beta / (1 - t)) ** 2 * error
        expected.append(0.5 * (small / used - 1 - np.log(small / used) + gap / used))
    np.testing.assert_allclose(result.transitions[0], expected, rtol=0.03)
    np.testing.assert_allclose(result.diffusion[0], result.transitions[0].sum(), rtol=1e-5)
    end = kept[-1]
    np.testing.assert_allclose(result.prior[0], 0.5 * (end * x0**2 - end - np.log(1 - end)), rtol=1e-4)
    shrink, ratio = np.sqrt(kept[0]) * data / (kept[0] * data + 1 - kept[0]), (1 - kept[0]) / kept[0]
    error = (x0 * (1 - shrink * np.sqrt(kept[0]))) ** 2 + shrink**2 * (1 - kept[0])
    last = -0.5 * (error / ratio + np.log(2 * np.pi * ratio))
    np.testing.assert_allclose(result.reconstruction[0], last, atol=0.02)
    value = result.reconstruction - result.diffusion - result.prior
    np.testing.assert_allclose(result.value, value, rtol=1e-5)


def test_some_steps_estimate_the_sum_over_all():
    chain, x = DiscreteChain(cosine_betas(50)), MODEL.sample(jr.key(3), 1)
    whole = sgm.elbo(chain, MODEL, x, jr.key(4), draws=2000, full=True)
    assert whole.transitions.shape == (1, 49)
    each = jnp.broadcast_to(x, (2000, 2))
    few = sgm.elbo(chain, MODEL, each, jr.key(5), steps=7, draws=4, full=True)
    assert few.transitions is None
    spread = float(few.value.std())
    assert abs(float(few.value.mean() - whole.value[0])) < 4 * math.hypot(spread / 2000**0.5, float(whole.stderr[0]))
    np.testing.assert_allclose(float(jnp.mean(few.stderr**2)) ** 0.5, spread, rtol=0.1)


def test_bins_have_the_probability_of_the_gaussian():
    count, level, log_variance = 17, jnp.asarray(-2.0), jnp.asarray(-3.0)
    estimate = MODEL.predict(jnp.asarray(-1.2), jnp.asarray([0.2, 0.4]))
    middles = jnp.stack(jnp.meshgrid(*[-1 + (2 * jnp.arange(17) + 1) / 17] * 2), -1).reshape(-1, 2)
    rule = DiscretisedGaussian(count)
    log_probs = jax.jit(jax.vmap(lambda x0: rule.log_prob(x0, x0, level, estimate, log_variance)))(middles)
    np.testing.assert_allclose(float(jnp.exp(log_probs).sum()), 1, rtol=1e-5)
    edges = np.concatenate([[-np.inf], np.linspace(-1, 1, 18)[1:-1], [np.inf]])
    cdf = stats.norm.cdf(edges[:, None], np.asarray(estimate.denoised, np.float64), math.exp(-1.5))
    by_axis = np.diff(cdf, axis=0)
    index = np.rint((np.asarray(middles, np.float64) + 1) * 17 / 2 - 0.5).astype(int)
    expected = np.log(by_axis[index[:, 0], 0] * by_axis[index[:, 1], 1])
    np.testing.assert_allclose(log_probs, expected, rtol=1e-3, atol=1e-3)


def test_bins_far_from_the_mean_have_finite_gradients():
    estimate = MODEL.predict(jnp.asarray(-4.6), jnp.asarray([0.9, -0.9]))
    rule = DiscretisedGaussian(256)

    def log_prob(x0):
        return rule.log_prob(x0, x0, jnp.asarray(-5.0), estimate, jnp.asarray(-10.0))

    compiled = jax.jit(jax.value_and_grad(log_prob))
    for x0 in (jnp.asarray([-0.99, 0.99]), estimate.denoised):
        value, gradient = compiled(x0)
        assert bool(jnp.isfinite(value)) and bool(jnp.all(jnp.isfinite(gradient)))


@pytest.mark.slow
def test_normal_data_are_no_better_than_the_gaussian():
    normal = Gaussian(jnp.zeros(3), jnp.eye(3))
    bound = sgm.elbo(even_chain(50), normal, normal.sample(jr.key(6), 5000), jr.key(7), variance=FixedLarge())
    bits = sgm.bits_over_gaussian(bound, 3)
    assert -0.01 < float(bits.mean()) < 3 * float(bits.std()) / 5000**0.5
    np.testing.assert_allclose(sgm.bits_over_gaussian(-0.5 * math.log(2 * math.pi * math.e), 1), 0, atol=1e-6)


@pytest.mark.slow
def test_gradients_agree_with_finite_differences(float64):
    model = Gaussian(jnp.asarray([0.2, -0.1]), jnp.asarray([[0.5, 0.1], [0.1, 0.8]]))
    x, chain = model.sample(jr.key(8), 5), DiscreteChain(linear_betas(20, 1e-3, 0.3))

    def bound(mean):
        shifted = Gaussian(mean, jnp.asarray([[0.5, 0.1], [0.1, 0.8]]))
        return sgm.elbo(chain, shifted, x, jr.key(9), steps=5).mean()

    step = jnp.asarray([1e-5, 0.0])
    slope = float(bound(model.mean + step) - bound(model.mean - step)) / 2e-5
    np.testing.assert_allclose(jax.grad(bound)(model.mean)[0], slope, rtol=1e-6)


def test_a_learned_variance_has_a_bound():
    def network(level, u, cond, key=None):
        return jnp.concatenate([jnp.zeros_like(u), jnp.ones_like(u)], axis=-1)

    model = sgm.ScoreModel(network, WithVariance(), shape=(2,))
    large = sgm.ScoreModel(lambda level, u, cond, key=None: jnp.zeros_like(u), sgm.model.Noise(), shape=(2,))
    x, chain = jnp.ones((3, 2)), DiscreteChain(linear_betas(20, 1e-3, 0.3))
    by_output = sgm.elbo(chain, model, x, jr.key(10), variance=Interpolated())
    np.testing.assert_allclose(by_output, sgm.elbo(chain, large, x, jr.key(10), variance=FixedLarge()), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "elbo: steps = 0; pass an integer, 1 <= steps <= 19, or None"),
        ({"steps": 20}, "elbo: steps = 20; pass an integer, 1 <= steps <= 19, or None"),
        ({"draws": 0}, "elbo: draws = 0; pass draws >= 1"),
        ({"x": jnp.asarray([[1.0, jnp.nan]])}, "elbo: 1 of the 2 entries of x are not finite"),
        ({"x": jnp.ones((2, 3))}, r"elbo: x has shape \(2, 3\)"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    x = options.pop("x", jnp.ones((1, 2)))
    with pytest.raises(ValueError, match=message):
        sgm.elbo(DiscreteChain(linear_betas(20, 1e-3, 0.3)), MODEL, x, jr.key(0), **options)


def test_a_process_that_is_no_chain_is_named(types_unchecked):
    with pytest.raises(ValueError, match=r"elbo: the process is a VP; pass a DiscreteChain, .* DiscreteChain.at_times"):
        sgm.elbo(sgm.VP(), MODEL, jnp.ones((1, 2)), jr.key(0))  # pyright: ignore[reportArgumentType]
