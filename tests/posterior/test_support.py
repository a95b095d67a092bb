import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from truth import Shifted

import sgm
from sgm.model import AbstractModel, Gaussian, Uniform
from sgm.posterior import Acceptance, log_prob_within, sample_within

MEAN, STD = np.asarray([0.5, -1.0]), np.asarray([1.0, 0.4])
MODEL = Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.diag(jnp.asarray(STD**2, jnp.float32)))
BOX = Uniform(jnp.asarray([0.0, -1.2]), jnp.asarray([1.2, 0.0]))
SDE = sgm.VP(sgm.sde.Cosine(ratio_max=1e4))
ENDS = [(np.asarray(end) - MEAN) / STD for end in (BOX.low, BOX.high)]
RATE = float(np.prod(scipy.stats.norm.cdf(ENDS[1]) - scipy.stats.norm.cdf(ENDS[0])))


def exact_log_prob(x):
    return scipy.stats.norm.logpdf(np.asarray(x, np.float64), MEAN, STD).sum(-1) - np.log(RATE)


def test_draws_are_those_of_the_truncated_normal():
    x, acceptance = sample_within(SDE, MODEL, jr.key(0), 2500, BOX, round_size=1500)
    assert x.shape == (2500, 2) and bool(jnp.all(jax.vmap(BOX.contains)(x)))
    for place in range(2):
        truth = scipy.stats.truncnorm(ENDS[0][place], ENDS[1][place], MEAN[place], STD[place])
        assert scipy.stats.kstest(np.asarray(x[:, place]), truth.cdf).pvalue > 1e-3
    assert acceptance.drawn % 1500 == 0 and acceptance.accepted >= 2500
    assert abs(np.log(acceptance.rate / RATE)) < 4 * acceptance.log_stderr
    expected = np.sqrt((1 - RATE) / (RATE * acceptance.drawn))
    assert acceptance.log_stderr == pytest.approx(expected, rel=0.1)


def test_the_density_within_is_that_of_the_truncated_normal():
    accepted = round(RATE * 10**6)
    acceptance = Acceptance(accepted, 10**6)
    x = np.asarray([[[0.1, -1.0], [1.1, -0.1], [-0.1, -1.0]], [[0.5, -1.3], [1.2, -1.2], [0.6, -0.6]]], np.float32)
    result = log_prob_within(SDE, MODEL, x, BOX, acceptance, full=True)
    inside = np.asarray([[True, True, False], [False, True, True]])
    np.testing.assert_array_equal(np.isneginf(result.value), ~inside)
    np.testing.assert_allclose(result.value[inside], exact_log_prob(x)[inside], atol=3e-3)
    np.testing.assert_allclose(result.stderr[inside], acceptance.log_stderr, rtol=1e-5)
    np.testing.assert_array_equal(result.stderr[~inside], 0)
    np.testing.assert_array_equal(log_prob_within(SDE, MODEL, x, BOX, acceptance), result.value)


@pytest.mark.slow
def test_the_density_within_integrates_to_one():
    axes = [np.linspace(-0.5, 1.7, 89), np.linspace(-1.6, 0.4, 81)]  # no point of the grid is an end of the box
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32) + np.float32(0.0123)
    acceptance = Acceptance(round(RATE * 10**6), 10**6)
    log_p = np.asarray(log_prob_within(SDE, MODEL, grid, BOX, acceptance), np.float64)
    assert np.exp(log_p).sum() * 0.025**2 == pytest.approx(1, abs=0.03)  # the ends are a cell wide


@pytest.mark.slow
def test_errors_of_the_trace_and_of_the_rate_are_joined():
    model, x = Gaussian(jnp.zeros(2), jnp.asarray([[1.0, 0.6], [0.6, 1.0]])), jnp.asarray([[0.3, -0.5], [9.0, 9.0]])
    acceptance, trace = Acceptance(30, 100), sgm.Hutchinson(4)
    alone = sgm.log_prob(SDE, model, x, jr.key(0), trace=trace, full=True)
    both = log_prob_within(SDE, model, x, BOX, acceptance, jr.key(0), trace=trace, full=True)
    assert float(alone.stderr[0]) > 0 and float(alone.dof[0]) == 3
    joined = np.hypot(float(alone.stderr[0]), acceptance.log_stderr)
    assert float(both.stderr[0]) == pytest.approx(joined, rel=1e-5)
    assert 3 < float(both.dof[0]) < 103
    assert float(both.value[1]) == -np.inf and float(both.stderr[1]) == 0


def test_a_support_may_be_a_function_and_a_condition_one_for_all():
    cond = sgm.Condition(params=jnp.asarray([1.0, -1.0]))
    above = lambda x: jnp.all(x > 0)  # noqa: E731
    x, acceptance = sample_within(SDE, Shifted(1.0), jr.key(1), 400, above, cond=cond)
    assert bool(jnp.all(x > 0))
    rate = scipy.stats.norm.cdf(1.0) * scipy.stats.norm.cdf(-1.0)
    assert abs(np.log(acceptance.rate / rate)) < 4 * acceptance.log_stderr
    log_p = log_prob_within(SDE, Shifted(1.0), jnp.asarray([0.5, 0.5]), above, acceptance, cond=cond)
    expected = scipy.stats.norm.logpdf([0.5, 0.5], [1.0, -1.0]).sum() - np.log(acceptance.rate)
    assert float(log_p) == pytest.approx(expected, abs=5e-3)


@pytest.mark.slow
def test_the_density_within_has_the_derivative_of_the_whole_also_forwards():
    acceptance = Acceptance(30, 100)

    def log_p(x, **options):
        return log_prob_within(SDE, MODEL, x, BOX, acceptance, **options)

    x = jnp.asarray([0.9, -0.8])
    expected = -(np.asarray(x) - MEAN) / STD**2
    np.testing.assert_allclose(jax.jacfwd(lambda x: log_p(x, adjoint=diffrax.ForwardMode()))(x), expected, atol=3e-3)
    np.testing.assert_allclose(jax.grad(log_p)(x), expected, atol=3e-3)


def test_draws_that_are_no_numbers_lie_nowhere():
    class Broken(AbstractModel):
        """Noise of which half is lost."""

        shape: tuple[int, ...] = (2,)

        def predict(self, level, u, cond=None, key=None):
            return jax.tree.map(lambda part: jnp.where(u > 0, part, jnp.nan), MODEL.predict(level, u))

    for support in (BOX, lambda x: ~jnp.any(x < 0)):  # the second holds what is no number
        with pytest.raises(ValueError, match=r"sample_within: \d+ of 200 draws are not finite, .* pass a method of mo"):
            sample_within(SDE, Broken(), jr.key(0), 10, support, method=sgm.DDIM(3), round_size=200)


@pytest.mark.quick
@pytest.mark.usefixtures("types_unchecked")
def test_a_support_of_another_shape_or_kind_is_named():
    three, all_drawn = Uniform((0.0,) * 3, (1.0,) * 3), Acceptance(10, 10)
    for name, call in (
        ("sample_within", lambda support: sample_within(SDE, MODEL, jr.key(0), 10, support)),
        ("log_prob_within", lambda support: log_prob_within(SDE, MODEL, jnp.zeros(2), support, all_drawn)),
    ):
        message = rf"{name}: support is of examples of shape \(3,\), but the model of \(2,\); pass one of that shape"
        with pytest.raises(ValueError, match=message):
            call(three)
        with pytest.raises(TypeError, match=rf"{name}: support is the class Uniform; pass an instance such as sgm"):
            call(Uniform)
        with pytest.raises(TypeError, match=rf"{name}: support is a WithUnits; pass an instance such as sgm"):
            call(BOX.in_units(sgm.Units()))


@pytest.mark.quick
def test_where_all_draws_are_within_the_error_is_not_zero():
    everywhere = Acceptance(100, 100)
    assert everywhere.rate == 1 and 0 < everywhere.log_stderr < 0.02


@pytest.mark.usefixtures("types_unchecked")
def test_what_cannot_be_done_is_said():
    far = Uniform(jnp.full(2, 50.0), jnp.full(2, 51.0))
    options = {"method": sgm.DDIM(5)}
    message = "sample_within: 0 of 1000 draws lie within the support, a share of 0, where least_rate = 0.01; pass"
    with pytest.raises(ValueError, match=message):
        sample_within(SDE, MODEL, jr.key(0), 10, far, **options)
    with pytest.raises(ValueError, match="log_prob_within: none of 1000 draws lies within the support"):
        log_prob_within(SDE, MODEL, jnp.zeros(2), far, Acceptance(0, 1000))
    cond = sgm.Condition(params=jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"sample_within: cond has the batch axes \[\(3,\)\], but each condition"):
        sample_within(SDE, Shifted(1.0), jr.key(0), 10, BOX, cond=cond, **options)
    with pytest.raises(ValueError, match=r"support gives bool of shape \(2,\) for one example; let it give one"):
        sample_within(SDE, MODEL, jr.key(0), 10, lambda x: x > 0, **options)
    with pytest.raises(TypeError, match=r"support = 3\.0; pass an instance such as sgm.model.Uniform"):
        sample_within(SDE, MODEL, jr.key(0), 10, 3.0, **options)
    with pytest.raises(TypeError, match=r"log_prob_within: acceptance = 0\.5; pass what sample_within\(...\) gives"):
        log_prob_within(SDE, MODEL, jnp.zeros(2), BOX, 0.5)
    with pytest.raises(ValueError, match=r"sample_within: it is inside jax\.jit or jax.vmap"):
        jax.jit(lambda key: sample_within(SDE, MODEL, key, 10, BOX, **options)[0])(jr.key(0))
    with pytest.raises(ValueError, match=r"least_rate = 0\.0; pass a share above 0"):
        sample_within(SDE, MODEL, jr.key(0), 10, BOX, least_rate=0.0, **options)
