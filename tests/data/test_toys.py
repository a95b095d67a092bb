import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.datasets import make_moons, make_swiss_roll

from sgm.data import Checkerboard, EightGaussians, Moons, Spiral, StandardSwissRoll, SwissRoll, TwoGaussians
from sgm.nn.conditioning import Conditioning

NOISY = [TwoGaussians(), EightGaussians(), Moons(), SwissRoll(), StandardSwissRoll(), Spiral()]
TOYS = [*NOISY, Checkerboard()]


def name(toy):
    return type(toy).__name__


def centres(toy, count):
    """The centres at the midpoints of `count` equal cells of [0, 1), in float64: nodes to average over u ~ U(0, 1)."""
    return np.asarray(toy.centre((jnp.arange(count, dtype=jnp.float32) + 0.5) / count), np.float64)


def axis_density(toy, x, nodes):
    return scipy.stats.norm.pdf(x[:, None], nodes, toy.noise)


@pytest.mark.parametrize("toy", NOISY, ids=name)
def test_entropy_is_the_integral_over_a_grid(toy):
    # A trapezoid sum over a smooth, decayed density converges faster than any power of its spacing
    grid = np.arange(-6, 6, toy.noise / 4)
    nodes = centres(toy, 4096)
    p = axis_density(toy, grid, nodes[:, 0]) @ axis_density(toy, grid, nodes[:, 1]).T / len(nodes)
    cell = (toy.noise / 4) ** 2
    assert p.sum() * cell == pytest.approx(1, abs=1e-9)
    assert scipy.stats.entropy(p.ravel() * cell) + math.log(cell) == pytest.approx(toy.entropy, abs=1e-4)


@pytest.mark.parametrize("toy", NOISY, ids=name)
def test_draws_have_the_stated_density(toy):
    # -E log p(x) equals the entropy only if x is drawn from p
    x = np.asarray(toy.rows("test", 0, 4000)[0], np.float64)
    nodes = centres(toy, 1024)
    log_p = np.log(np.mean(axis_density(toy, x[:, 0], nodes[:, 0]) * axis_density(toy, x[:, 1], nodes[:, 1]), axis=1))
    assert -log_p.mean() == pytest.approx(toy.entropy, abs=4 * log_p.std() / math.sqrt(len(x)))


@pytest.mark.parametrize("toy", TOYS, ids=name)
def test_batches_are_functions_of_step_and_seed(toy):
    x, condition = toy.batch(5, 64, seed=2)
    assert x.shape == (64, *toy.shape) and x.dtype == np.float32 and condition == {}
    assert toy.levels is None and toy.conditioning == Conditioning() and toy.statistics() is None
    np.testing.assert_array_equal(x, type(toy)().batch(5, 64, seed=2)[0])
    assert not np.isin(x, toy.batch(6, 64, seed=2)[0]).any()
    assert not np.isin(x, toy.batch(5, 64, seed=3)[0]).any()


@pytest.mark.parametrize("toy", TOYS, ids=name)
def test_splits_are_fixed_draws_of_their_own(toy):
    assert toy.size("train") == toy.size("test") == 10_000
    train, test = toy.rows("train", 0, 20_000)[0], toy.rows("test", 0, 20_000)[0]
    assert train.shape == test.shape == (10_000, 2)
    np.testing.assert_array_equal(toy.rows("test", 10, 20)[0], test[10:20])
    batch = toy.batch(0, 10_000, seed=0)[0]
    for one, other in [(train, test), (train, batch), (test, batch)]:
        assert not (one == other).all(axis=1).any()
    assert np.abs(test).max() < 4.6


def test_the_standard_swiss_roll_has_mean_zero_and_variance_one():
    nodes = centres(StandardSwissRoll(), 4096)
    np.testing.assert_allclose(nodes.mean(0), 0, atol=1e-4)
    assert nodes.var(0).mean() + StandardSwissRoll().noise ** 2 == pytest.approx(1, abs=1e-4)


def test_two_gaussians_are_equally_likely_modes():
    x = TwoGaussians().rows("test", 0, 10_000)[0]
    right = x[:, 0] > 0
    assert scipy.stats.binomtest(int(right.sum()), len(x)).pvalue > 1e-3
    for side, centre in ((right, 2), (~right, -2)):
        np.testing.assert_allclose(x[side].mean(0), [centre, 0], atol=4 * 0.5 / math.sqrt(side.sum()))
        np.testing.assert_allclose(x[side].std(0), 0.5, rtol=0.05)


def test_eight_gaussians_are_equally_likely_modes():
    x = EightGaussians().rows("test", 0, 10_000)[0]
    mode = np.round(np.arctan2(x[:, 1], x[:, 0]) / (math.pi / 4)).astype(int) % 8
    assert scipy.stats.chisquare(np.bincount(mode, minlength=8)).pvalue > 1e-3
    np.testing.assert_allclose(x[mode == 0].mean(0), [4 / math.sqrt(2), 0], atol=0.05)


def test_moons_lie_on_those_of_scikit_learn():
    reference, upper = make_moons(2000, noise=None)
    reference = 2 * (reference - [0.5, 0.25])
    nodes = centres(Moons(), 2000)
    for ours, theirs in ((nodes[:1000], reference[upper == 0]), (nodes[1000:], reference[upper == 1])):
        distance = np.linalg.norm(ours[:, None] - theirs, axis=-1)
        assert max(distance.min(0).max(), distance.min(1).max()) < 0.01


def test_swiss_roll_is_that_of_scikit_learn():
    reference, angle = make_swiss_roll(500, noise=0.0, random_state=0)
    u = jnp.asarray((angle / (1.5 * math.pi) - 1) / 2, jnp.float32)
    np.testing.assert_allclose(SwissRoll().centre(u), reference[:, [0, 2]] / 5, atol=1e-4)


def test_spiral_arms_mirror_each_other_with_radius_a_third_of_the_angle():
    first, second = np.split(centres(Spiral(), 2000), 2)
    np.testing.assert_allclose(first, -second, atol=1e-4)
    radius = np.hypot(*first.T)
    np.testing.assert_allclose((radius / math.pi) ** 2, (np.arange(1000) + 0.5) / 1000, atol=1e-5)
    np.testing.assert_allclose(first.T, radius * np.array([np.cos(3 * radius), np.sin(3 * radius)]), atol=1e-4)


def test_checkerboard_is_uniform_on_its_eight_squares():
    x = Checkerboard().rows("test", 0, 10_000)[0].astype(np.float64) / 2 + 2
    square = np.floor(x).astype(int)
    assert square.min() == 0 and square.max() == 3
    assert (square.sum(axis=1) % 2 == 0).all()
    counts = np.unique(square, axis=0, return_counts=True)[1]
    assert len(counts) == 8 and scipy.stats.chisquare(counts).pvalue > 1e-3
    for place in (x - square).T:
        assert scipy.stats.kstest(place, "uniform").pvalue > 1e-3
    assert Checkerboard().entropy == pytest.approx(3.4657, abs=1e-4)


def test_draw_compiles_and_is_float32():
    x = jax.jit(Checkerboard().draw, static_argnums=1)(jax.random.key(0), 3)
    assert x.shape == (3, 2) and x.dtype == jnp.float32


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="batch_size is 0: a batch needs at least 1 example"):
        Moons().batch(0, 0, seed=0)
    with pytest.raises(ValueError, match="unknown split 'valid'"):
        Moons().rows("valid", 0, 1)
    with pytest.raises(ValueError, match="unknown split 'valid'"):
        Moons().size("valid")
