"""Models made from models, held to exact ones."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

import sgm
from sgm.model import (
    AbstractModel,
    AutoGuidance,
    ClassifierFree,
    Composed,
    Conditioned,
    Gaussian,
    GaussianMixture,
    Observations,
    PerExample,
    Thresholded,
    Uniform,
    from_denoised,
)
from sgm.nn import Conditioning
from sgm.sde import cos_of, sin_of

U, LEVEL, LEVELS = jnp.asarray([0.4, -0.7]), jnp.asarray(0.2), (-3.0, 0.2, 1.5)
MEANS = jnp.asarray([[-1.0, 0.3], [0.8, 0.5], [0.2, -1.2]])


class Labelled(AbstractModel):
    """Three Gaussians, one for each label; dropped, their mixture."""

    shape: tuple[int, ...] = eqx.field(static=True, default=(2,))
    std: float = 0.4

    @property
    def conditioning(self):
        return Conditioning(classes=3, null=True)

    def weights(self, cond):
        one = jax.nn.one_hot(cond.label, 3)
        return one if cond.dropped is None else jnp.where(cond.dropped, jnp.full(3, 1 / 3), one)

    def predict(self, level, u, cond=None, key=None):
        return GaussianMixture(MEANS, jnp.full(3, self.std), self.weights(cond)).predict(level, u)


MODEL, COND = Labelled(), sgm.Condition(label=1)


def parts(model, level, cond=COND, u=U):
    estimate = model.predict(jnp.asarray(level), u, cond)
    return np.stack([estimate.denoised, estimate.noise, estimate.velocity])


def mixture(weights, level):
    return parts(GaussianMixture(MEANS, jnp.full(3, 0.4), jnp.asarray(weights)), level)


class TestClassifierFree:
    @pytest.mark.parametrize("level", LEVELS)
    def test_the_estimate_is_its_formula(self, level):
        found = parts(ClassifierFree(MODEL, 3.0), level)
        expected = 4 * mixture([0.0, 1.0, 0.0], level) - 3 * mixture([1 / 3] * 3, level)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("level", LEVELS)
    def test_weight_0_is_the_conditional_model_to_the_bit(self, level):
        np.testing.assert_array_equal(parts(ClassifierFree(MODEL, 0.0), level), parts(MODEL, level))
        np.testing.assert_array_equal(parts(ClassifierFree(MODEL, 0.0, rescale=0.7), level), parts(MODEL, level))

    def test_it_acts_within_its_interval(self):
        model = ClassifierFree(MODEL, 3.0, interval=(0.5, 2.0))
        for level, inside in ((np.log(0.49), False), (np.log(0.51), True), (np.log(1.99), True), (np.log(2.01), False)):
            expected = ClassifierFree(MODEL, 3.0) if inside else MODEL
            np.testing.assert_array_equal(parts(model, level), parts(expected, level))

    @pytest.mark.parametrize("share", [0.5, 1.0])
    def test_rescaling_gives_the_spread_of_the_conditioned_estimate(self, share):
        plain, conditioned = parts(ClassifierFree(MODEL, 3.0), 0.2)[0], parts(MODEL, 0.2)[0]
        expected = share * plain * np.std(conditioned) / np.std(plain) + (1 - share) * plain
        estimate = parts(ClassifierFree(MODEL, 3.0, rescale=share), 0.2)
        np.testing.assert_allclose(estimate[0], expected, rtol=1e-5)
        # The three means stay those of one state u = cos x0 + sin noise.
        cos, sin = cos_of(jnp.asarray(0.2)), sin_of(jnp.asarray(0.2))
        np.testing.assert_allclose(cos * estimate[0] + sin * estimate[1], U, atol=1e-5)
        np.testing.assert_allclose(cos * U - sin * estimate[2], estimate[0], atol=1e-5)

    def test_a_weight_of_each_example(self):
        key, weights, method = jr.key(1), jnp.asarray([0.0, 1.0, 4.0]), sgm.DDIM(8)
        cond = sgm.Condition(label=jnp.asarray([0, 1, 2]))
        found = sgm.sample(sgm.VP(), ClassifierFree(MODEL, PerExample(weights)), key, 3, cond=cond, method=method)
        for place, weight in enumerate(weights):
            alone = sgm.sample(sgm.VP(), ClassifierFree(MODEL, weight), key, 3, cond=cond, method=method)
            np.testing.assert_allclose(found[place], alone[place], atol=1e-5)
        with pytest.raises(ValueError, match=r"values of shape \(3,\), .* but the call is of 4 examples"):
            sgm.sample(sgm.VP(), ClassifierFree(MODEL, PerExample(weights)), key, 4, cond=COND, method=method)

    @pytest.mark.slow
    def test_log_prob_takes_weights_of_each_example(self):
        x, weights = jnp.stack([U, U]), jnp.asarray([0.0, 2.0])
        model = ClassifierFree(MODEL, PerExample(weights))
        found = sgm.log_prob(sgm.VP(), model, x, cond=COND, trace=sgm.Exact())
        plain = GaussianMixture(MEANS, jnp.full(3, 0.4), jnp.asarray([0.0, 1.0, 0.0])).log_prob(U)
        assert found[0] == pytest.approx(float(plain), abs=0.03) and abs(found[1] - found[0]) > 0.1

    def test_the_weight_may_be_differentiated(self):
        slope = jax.grad(lambda weight: jnp.sum(ClassifierFree(MODEL, weight).predict(LEVEL, U, COND).denoised))(1.0)
        difference = parts(MODEL, 0.2)[0] - mixture([1 / 3] * 3, 0.2)[0]
        assert slope == pytest.approx(float(difference.sum()), rel=1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_auto_guidance_is_its_formula(level):
    weaker = Labelled(std=0.9)
    expected = 2.5 * parts(MODEL, level) - 1.5 * parts(weaker, level)
    np.testing.assert_allclose(parts(AutoGuidance(MODEL, weaker, 1.5), level), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(parts(AutoGuidance(MODEL, weaker, 0.0), level), parts(MODEL, level))


class Fixed(AbstractModel):
    """Its estimate of x0 is always the same."""

    x0: jax.Array

    @property
    def shape(self):
        return self.x0.shape

    def predict(self, level, u, cond=None, key=None):
        return from_denoised(level, u, self.x0)


def test_thresholding_clips_to_a_quantile_and_scales_back():
    x0 = jnp.asarray([0.5, -1.0, 2.0, -4.0, 3.0])
    found = Thresholded(Fixed(x0), quantile=0.75).predict(jnp.asarray(0.3), jnp.zeros(5)).denoised
    scale = np.quantile(np.abs(x0), 0.75)
    np.testing.assert_allclose(found, np.clip(x0, -scale, scale) / scale, rtol=1e-6)
    # What lies within the range stays.
    inside = Thresholded(Fixed(x0 / 4)).predict(jnp.asarray(0.3), jnp.zeros(5)).denoised
    np.testing.assert_allclose(inside, x0 / 4, rtol=1e-6)
    # The range is in the data's units.
    levels = sgm.model.WithUnits(Fixed(x0), sgm.Units(127.5, 127.5))
    in_levels = Thresholded(levels, quantile=0.75, low=0.0, high=255.0).predict(jnp.asarray(0.3), jnp.zeros(5)).denoised
    np.testing.assert_allclose(in_levels, found, atol=1e-6)
    # With `largest` 1 it clips.
    clipped = Thresholded(Fixed(x0), quantile=0.75, largest=1.0).predict(jnp.asarray(0.3), jnp.zeros(5)).denoised
    np.testing.assert_allclose(clipped, np.clip(x0, -1, 1), rtol=1e-6)


@pytest.mark.parametrize("kind", [sgm.model.Clipped, partial(Thresholded, quantile=0.75)])
def test_the_noise_stays_where_it_is_not_to_move(kind):
    x0, level, u = jnp.asarray([0.5, -1.0, 2.0, -4.0, 3.0]), jnp.asarray(0.3), jnp.arange(5.0)
    before, moved, stays = (
        model.predict(level, u) for model in (Fixed(x0), kind(Fixed(x0)), kind(Fixed(x0), moves_noise=False))
    )
    np.testing.assert_allclose(stays.denoised, moved.denoised, rtol=1e-6)
    np.testing.assert_array_equal(stays.noise, before.noise)
    np.testing.assert_array_equal(stays.velocity, before.velocity)
    again = from_denoised(level, u, moved.denoised)
    np.testing.assert_allclose(moved.noise, again.noise, rtol=1e-5)


class TestComposed:
    def test_the_score_is_the_weighted_sum(self):
        models = Gaussian(jnp.zeros(2), jnp.eye(2)), Gaussian(jnp.ones(2), 0.5 * jnp.eye(2))
        sde, weights = sgm.VP(), (0.6, 1.3)
        product = Composed(models, weights)
        for t in (0.1, 0.5):
            expected = sum(w * model.score(sde, t, U) for w, model in zip(weights, models, strict=True))
            np.testing.assert_allclose(product.score(sde, t, U), expected, rtol=1e-4)
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            np.testing.assert_allclose(
                product.denoise(sde, t, U), (U + sigma**2 * expected) / alpha, rtol=1e-4, atol=1e-5
            )
            estimate = product.predict(jnp.asarray(sde.level(t)), U)
            np.testing.assert_allclose(
                cos_of(sde.level(t)) * U - sin_of(sde.level(t)) * estimate.velocity, estimate.denoised, atol=1e-4
            )
        assert not product.defined_at_pure_noise and Composed(models, (0.3, 0.7)).defined_at_pure_noise

    def test_conditions_are_composed_by_conditioned_models(self):
        cases = [Conditioned(MODEL, sgm.Condition(label=label)) for label in (0, 2)]
        null = Conditioned(MODEL, sgm.Condition(label=0, dropped=True))
        found = parts(Composed((*cases, null), (1.0, 1.0, -1.0)), 0.2, cond=None)
        expected = mixture([1.0, 0, 0], 0.2) + mixture([0, 0, 1.0], 0.2) - mixture([1 / 3] * 3, 0.2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


PRIOR = np.asarray([[1.0, 0.5], [0.5, 0.8]])
NOISE = np.asarray([[0.6, 0.1], [0.1, 0.9]])
GAIN = PRIOR @ np.linalg.inv(PRIOR + NOISE)


class LinearGaussian(AbstractModel):
    """The posterior of x ~ N(0, PRIOR) given y = x + N(0, NOISE)."""

    shape: tuple[int, ...] = eqx.field(static=True, default=(2,))

    def predict(self, level, u, cond=None, key=None):
        gain, cov = jnp.asarray(GAIN, jnp.float32), jnp.asarray(PRIOR - GAIN @ PRIOR, jnp.float32)
        return Gaussian(gain @ cond.params, cov).predict(level, u)


@pytest.mark.slow_except("1")
@pytest.mark.parametrize("count", [1, 8])
def test_independent_observations_have_the_closed_form_posterior(count):
    y = np.random.default_rng(0).normal([0.5, -0.3], 1.0, (count, 2))
    cov = np.linalg.inv(np.linalg.inv(PRIOR) + count * np.linalg.inv(NOISE))
    mean = cov @ np.linalg.inv(NOISE) @ y.sum(axis=0)
    prior = Gaussian(jnp.zeros(2), jnp.asarray(PRIOR, jnp.float32))
    model = Observations(LinearGaussian(), sgm.Condition(params=jnp.asarray(y, jnp.float32)), prior)
    x = np.asarray(sgm.sample(sgm.VP(), model, jr.key(0), 4000, method=sgm.EDMHeun(40)))
    std = np.sqrt(np.diag(cov))
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.05 * std.min())
    np.testing.assert_allclose(x.std(axis=0) / std, 1, atol=0.03)
    np.testing.assert_allclose(np.corrcoef(x.T)[0, 1], cov[0, 1] / np.prod(std), atol=0.03)
    # The estimate itself is that of the posterior.
    exact = Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(cov, jnp.float32))
    for level in (*LEVELS, 12.0):
        np.testing.assert_allclose(parts(model, level, None), parts(exact, level, None), atol=5e-3)


class OfOne(AbstractModel):
    """The posterior N(y, std^2) of x given y = x + N(0, std^2), under a uniform prior whose ends are far from y."""

    std: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True, default=(1,))

    @property
    def units(self):
        return sgm.Units(100.0, 20.0)

    def predict(self, level, u, cond=None, key=None):
        std = self.std / self.units.std.value
        return Gaussian(self.units.standardise(cond.params), jnp.full((1, 1), std**2)).predict(level, u)


def test_a_prior_in_other_units_is_named():
    cond = sgm.Condition(params=jnp.asarray([[113.0]]))
    with pytest.raises(ValueError, match=r"different units; pass .*, or an exact one as prior.in_units\(model.units\)"):
        Observations(OfOne(4.0), cond, Uniform((70.0,), (150.0,)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 8])
def test_observations_under_a_uniform_prior_have_the_closed_form_posterior(count):
    prior, model = Uniform((70.0,), (150.0,)), OfOne(4.0)
    y = np.random.default_rng(0).normal(113.0, 4.0, (count, 1)).astype(np.float32)
    cond = sgm.Condition(params=jnp.asarray(y))
    composed = Observations(model, cond, prior.in_units(model.units))
    x = np.asarray(sgm.sample(sgm.VP(), composed, jr.key(0), 4000, method=sgm.DPMSolverPP(20)))[:, 0]
    assert scipy.stats.kstest(x, "norm", (y.mean(), 4.0 / count**0.5)).pvalue > 1e-3


KEY = jr.key(0)
WRONG = [
    (lambda: ClassifierFree(sgm.ScoreModel(sgm.nn.MLP((2,), key=KEY), shape=(2,))), "has learned no null"),
    (lambda: ClassifierFree(MODEL, interval=(2.0, 1.0)), "pass .low, high. with low < high"),
    (lambda: ClassifierFree(MODEL, rescale=1.5), "rescale = 1.5; pass 0 <= rescale <= 1"),
    (lambda: ClassifierFree(MODEL).predict(LEVEL, U), "ClassifierFree: there is no condition"),
    (lambda: AutoGuidance(MODEL, Gaussian(jnp.zeros(3), jnp.eye(3))), r"examples of \(2,\) and \(3,\); pass models"),
    (lambda: Composed((MODEL,), (1.0, 2.0)), "1 models and 2 weights"),
    (lambda: Conditioned(MODEL, sgm.Condition(params=[1.0])), "Conditioned: cond has `params`"),
    (lambda: Conditioned(MODEL, COND).predict(LEVEL, U, COND), "Conditioned: the condition is fixed"),
    (lambda: Observations(MODEL, COND, MODEL), r"have batch axes \[\(\)\]; pass conditions with one leading axis"),
    (lambda: Thresholded(MODEL, largest=0.5), "Thresholded: largest = 0.5; pass largest >= 1"),
    (lambda: Thresholded(MODEL, quantile=0.0), "quantile = 0.0; pass 0 < quantile <= 1"),
    (
        lambda: AutoGuidance(MODEL, sgm.model.WithUnits(MODEL, sgm.Units(1.0, 2.0))),
        "the models have different units",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_wrong_models_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
