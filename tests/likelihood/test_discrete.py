import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats
from truth import Shifted, gaussian

import sgm
from sgm.likelihood import TruncatedNormalDequantisation, UniformDequantisation, discrete_log_prob
from sgm.model import Gaussian

COUNT = 8
WIDTH = 2 / COUNT
MODEL = Gaussian(jnp.asarray([0.2, -0.3]), jnp.diag(jnp.asarray([0.3, 0.15]) ** 2))
LEVELS = jnp.asarray([[4, 2], [5, 3], [3, 1], [6, 2]])
SOLVES = 6400  # As many in several calls, so that they share a compilation.


def process(sigma):
    """VP from the time at which sigma/alpha is this to its usual end."""
    return sgm.VP(t0=float(sgm.VP().time(np.log(sigma))))


def truth(sde):
    """log P of the levels under p_t0, from the normal distribution function in float64."""
    alpha, sigma = float(sde.alpha(sde.t0)), float(sde.sigma(sde.t0))
    mean, std = alpha * np.asarray([0.2, -0.3]), np.hypot(alpha * np.asarray([0.3, 0.15]), sigma)
    edges = [-1 + WIDTH * (np.asarray(LEVELS) + side) for side in (0, 1)]
    lower, upper = (stats.norm.cdf(edge, mean, std) for edge in edges)
    return np.log(upper - lower).sum(1)


def bound(sde, dequantisation, samples):
    """The mean and its standard error, over draws, of the bound on each of the levels."""
    draws = SOLVES // (samples * len(LEVELS))
    repeated = jnp.broadcast_to(LEVELS, (draws, *LEVELS.shape))
    prior = MODEL.marginal(sde, sde.t1)
    options = {"dequantisation": dequantisation, "samples": samples, "trace": sgm.Exact(), "prior": prior}
    values = discrete_log_prob(sde, MODEL, repeated, jr.key(samples), count=COUNT, **options)
    return np.asarray(values.mean(0)), np.asarray(values.std(0)) / draws**0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sde", "dequantisation"),
    [(sgm.VP(), UniformDequantisation()), (process(WIDTH / 6), TruncatedNormalDequantisation())],
    ids=["uniform", "truncated normal"],
)
def test_the_bound_rises_with_samples_to_the_truth(sde, dequantisation):
    # The bins of the second are those of alpha x0: as good as the same, with alpha = 0.999.
    exact = truth(sde)
    one, error_one = bound(sde, dequantisation, 1)
    few, error_few = bound(sde, dequantisation, 4)
    many, error_many = bound(sde, dequantisation, 64)
    assert np.all(one < exact + 4 * error_one) and np.all(few < exact + 4 * error_few + 2e-3)
    assert one.mean() < few.mean() < many.mean()
    np.testing.assert_allclose(many, exact, atol=0.02 + 4 * error_many.max())


@pytest.mark.parametrize("dequantisation", [UniformDequantisation(), TruncatedNormalDequantisation()])
def test_draws_lie_in_their_bins_with_the_density_that_they_say(dequantisation):
    sde = process(WIDTH / 5)
    levels = jnp.full(50_000, 5)
    x, log_q = dequantisation.draw(sde, levels, COUNT, jr.key(0), -1.0, 1.0)
    scale = float(sde.alpha(sde.t0)) if isinstance(dequantisation, TruncatedNormalDequantisation) else 1.0
    low, high = scale * (-1 + 5 * WIDTH), scale * (-1 + 6 * WIDTH)
    assert low - 1e-6 <= float(x.min()) and float(x.max()) <= high + 1e-6
    # E[1 / q] over draws of q is the width of the bin, and each part of it has its share.
    middle = np.asarray(x) < (low + high) / 2
    np.testing.assert_allclose(np.mean(np.exp(-log_q)), high - low, rtol=0.02)
    np.testing.assert_allclose(np.mean(np.exp(-log_q) * middle), (high - low) / 2, rtol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, np.int16])
@pytest.mark.parametrize(("count", "low", "high"), [(256, -1.0, 1.0), (17, 0.0, 1.0), (2, -3.0, 5.0)])
def test_bits_do_not_depend_on_levels_range_or_type(dtype, count, low, high):
    """A density that is flat over all levels has log2(count) bits, by the density and by the levels."""
    model = Gaussian(jnp.full(3, (low + high) / 2), jnp.eye(3) * (1000 * (high - low)) ** 2)
    levels = np.asarray([[0, 1, count - 1]], dtype)
    sde = sgm.VE(t1=0.9)
    options = {"trace": sgm.Exact(), "prior": model.marginal(sde, sde.t1), "low": low, "high": high}
    value = discrete_log_prob(sde, model, levels, jr.key(0), count=count, **options)
    flat = 3 * np.log(1 / (1000 * np.sqrt(2 * np.pi) * count))
    np.testing.assert_allclose(sgm.bits_per_dim(value, 3, levels=None), -flat / 3 / np.log(2), rtol=1e-4)


@pytest.mark.slow
def test_error_bars_pass_through():
    model, sde = gaussian(16), sgm.VP()
    levels = jr.randint(jr.key(1), (3, 16), 0, COUNT)
    options = {"count": COUNT, "trace": sgm.Hutchinson(4)}
    result = discrete_log_prob(sde, model, levels, jr.key(2), full=True, **options)
    assert result.value.shape == result.stderr.shape == (3,) and result.draws.value.shape == (1, 3)
    np.testing.assert_allclose(result.stderr, result.draws.stderr[0], rtol=1e-6)
    assert bool(jnp.all(result.stderr > 0))


def test_the_error_of_several_draws_is_that_of_their_mean():
    sde, samples = sgm.VP(), 16
    levels = jnp.broadcast_to(jnp.asarray([4, 2]), (SOLVES // samples, 2))
    options = {"count": COUNT, "samples": samples, "trace": sgm.Exact(), "full": True}
    result = discrete_log_prob(sde, MODEL, levels, jr.key(3), prior=MODEL.marginal(sde, sde.t1), **options)
    np.testing.assert_allclose(float(jnp.mean(result.stderr**2)) ** 0.5, float(result.value.std()), rtol=0.1)


def test_each_image_has_its_condition():
    levels = jnp.asarray([[4, 2], [4, 2]])
    cond = sgm.Condition(params=jnp.asarray([[0.2, -0.3], [3.0, 3.0]]))
    options = {"count": COUNT, "samples": 3, "trace": sgm.Exact()}
    values = discrete_log_prob(sgm.VP(), Shifted(0.3), levels, jr.key(0), cond=cond, **options)
    assert float(values[0]) > float(values[1]) + 10
    with pytest.raises(ValueError, match=r"discrete_log_prob: the parts of cond"):
        discrete_log_prob(sgm.VP(), Shifted(0.3), LEVELS, jr.key(0), cond=cond, **options)


@pytest.mark.slow
def test_a_missed_accuracy_is_told():
    with pytest.warns(UserWarning, match=r"discrete_log_prob: \d of 4 values are not known to accuracy = 1e-09"):
        discrete_log_prob(sgm.VP(), MODEL, LEVELS, jr.key(0), count=COUNT, trace=sgm.Exact(), accuracy=1e-9)


@pytest.mark.parametrize(
    ("levels", "options", "message"),
    [
        (jnp.ones((1, 2)), {}, "levels have dtype float32; pass integers, or take real numbers"),
        (jnp.asarray([[0, 8]]), {}, r"levels lie in 0 \.\.\. 8; pass levels from 0 to count - 1 = 7"),
        (jnp.asarray([[-1, 3]]), {}, r"levels lie in -1 \.\.\. 3"),
        (jnp.ones((3, 5), int), {}, r"levels have shape \(3, 5\), but the model is of examples of shape \(2,\)"),
        (LEVELS, {"low": 1.0, "high": -1.0}, r"low = 1\.0, high = -1\.0; pass low < high"),
        (LEVELS, {"samples": 0}, "samples = 0; pass samples >= 1"),
    ],
)
@pytest.mark.usefixtures("types_unchecked")
def test_wrong_arguments_are_named(levels, options, message):
    with pytest.raises(ValueError, match=message):
        discrete_log_prob(sgm.VP(), MODEL, levels, jr.key(0), count=COUNT, trace=sgm.Exact(), **options)
