import functools
import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
import scipy.spatial
import scipy.stats

from sgm.data import DeadLeaves
from sgm.nn.conditioning import Conditioning

CLEAN = DeadLeaves(resolution=12, r_min=1.0, r_max=6.0, noise=0.0)
NOISY = DeadLeaves(resolution=8, r_min=1.5, r_max=4.0, noise=0.3)


class FewLeaves(DeadLeaves):
    """So few that much of the ground is seen."""

    leaves = 30


@functools.cache
def drawn(data):
    """4000 images in float64, without the channel axis."""
    return np.asarray(data.batch(0, 4000, seed=0)[0], np.float64)[..., 0]


def mean_over_radii(data, function):
    norm = (data.r_min**-2 - data.r_max**-2) / 2
    return scipy.integrate.quad(lambda r: function(r) * r**-3 / norm, data.r_min, data.r_max, limit=200)[0]


def overlap(r, distance):
    """Area of the intersection of two discs of radius r."""
    if distance >= 2 * r:
        return 0.0
    return 2 * r**2 * math.acos(distance / (2 * r)) - distance / 2 * math.sqrt(4 * r**2 - distance**2)


def pair(data, distance):
    """(mean overlap, mean area of the union) of a leaf and itself shifted."""
    both = mean_over_radii(data, lambda r: overlap(r, distance))
    return both, 2 * math.pi * mean_over_radii(data, lambda r: r**2) - both


def shifted(x, rows, columns):
    """Each pixel and the one `rows` below and `columns` to the right of it."""
    return x[:, : x.shape[1] - rows, : x.shape[2] - columns], x[:, rows:, columns:]


def check_mean(values, expected, deviations=4.0):
    """The means of independent rows are those expected, within so many standard errors."""
    values = values.reshape(len(values), -1)
    scores = (values.mean(axis=0) - expected) / (values.std(axis=0) / math.sqrt(len(values)))
    assert np.abs(scores).max() < deviations


@pytest.mark.slow
@pytest.mark.parametrize("shift", [(1, 0), (0, 3), (3, 4), (8, 0), (0, 11)])
def test_two_pixels_show_the_same_leaf_as_often_as_discs_overlap(shift):
    both, either = pair(CLEAN, math.hypot(*shift))
    first, second = shifted(drawn(CLEAN), *shift)
    check_mean((first == second).mean(axis=(1, 2)), both / either)


def test_the_same_holds_at_every_place():
    both, either = pair(CLEAN, 1)
    first, second = shifted(drawn(CLEAN), 0, 1)
    check_mean(first == second, both / either, deviations=4.5)


def test_bare_pixels_are_as_many_as_leaves_miss_and_show_the_ground():
    data = FewLeaves(resolution=12, r_min=1.0, r_max=6.0, noise=0.0)
    both, either = pair(data, 2)
    bare = (1 - either / (12 - 1 + 2 * 6) ** 2) ** 30  # that all leaves miss both pixels
    assert 0.2 < bare < 0.8
    first, second = shifted(drawn(data), 2, 0)
    check_mean(first == second, (1 - bare) * both / either + bare, deviations=4.5)
    check_mean(drawn(data) ** 2, 1.0, deviations=4.5)


def test_covariances_are_those_of_shared_leaves_and_of_noise():
    x = drawn(NOISY)
    for shift in ((0, 1), (2, 2), (7, 0)):
        both, either = pair(NOISY, math.hypot(*shift))
        first, second = shifted(x, *shift)
        check_mean((first * second).mean(axis=(1, 2)), (1 - 0.3**2) * both / either)
    check_mean((x**2).mean(axis=(1, 2)), 1.0)


def test_every_pixel_has_mean_0_and_variance_1():
    x = drawn(NOISY)
    check_mean(x, 0.0, deviations=4.5)
    check_mean(x**2, 1.0, deviations=4.5)


@pytest.mark.parametrize("place", [(0, 0), (3, 4)])
def test_a_pixel_is_a_uniform_grey_level_and_normal_noise(place):
    def cdf(x):
        # The integral of the normal distribution function is z cdf(z) + pdf(z)
        reach, noise = math.sqrt(3 * (1 - 0.3**2)), 0.3
        low, high = (x - reach) / noise, (x + reach) / noise
        integral = lambda z: z * scipy.stats.norm.cdf(z) + scipy.stats.norm.pdf(z)  # noqa: E731
        return noise / (2 * reach) * (integral(high) - integral(low))

    assert scipy.stats.kstest(drawn(NOISY)[:, *place], cdf).pvalue > 1e-3
    reach = math.sqrt(3)
    assert scipy.stats.kstest(drawn(CLEAN)[:, *place], "uniform", (-reach, 2 * reach)).pvalue > 1e-3


@pytest.mark.parametrize(("r_min", "r_max"), [(2.0, 16.0), (0.5, 0.6), (0.01, 100.0)])
def test_radii_have_the_density_of_the_power_law(r_min, r_max):
    data = DeadLeaves(r_min=r_min, r_max=r_max)
    u = jnp.linspace(0, 1, 101, dtype=jnp.float32)
    radii = np.asarray(jax.jit(data.radius)(u), np.float64)
    np.testing.assert_allclose(radii[[0, -1]], [r_min, r_max], rtol=1e-6)
    norm = scipy.integrate.quad(lambda r: r**-3, r_min, r_max, limit=200)[0]
    for share, radius in zip(np.asarray(u[1:-1], np.float64), radii[1:-1], strict=True):
        below = scipy.integrate.quad(lambda r: r**-3, r_min, radius, limit=200)[0]
        assert below / norm == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("data", [DeadLeaves(), CLEAN, DeadLeaves(resolution=1, r_min=0.5, r_max=40.0)])
def test_leaves_are_the_fewest_that_leave_a_thousandth_of_a_pixel_bare(data):
    area = math.pi * mean_over_radii(data, lambda r: r**2)
    coverage = area / (data.resolution - 1 + 2 * data.r_max) ** 2
    assert data.coverage == pytest.approx(coverage, rel=1e-9)
    pixels = data.resolution**2
    assert pixels * (1 - coverage) ** data.leaves <= 1e-3 < pixels * (1 - coverage) ** (data.leaves - 1)


def test_default_images_take_about_a_thousand_leaves():
    assert DeadLeaves().leaves == 1028
    x, condition = DeadLeaves().batch(0, 3, seed=0)
    assert x.shape == (3, 32, 32, 1) and x.dtype == np.float32 and condition == {}
    assert (
        DeadLeaves().levels is None
        and DeadLeaves().conditioning == Conditioning()
        and DeadLeaves().statistics() is None
    )


def test_images_are_functions_of_their_keys():
    x, _ = jax.jit(NOISY.simulate, static_argnums=1)(jr.key(3), 70)  # more than are drawn at a time
    again = jax.jit(jax.vmap(NOISY.draw))(jr.split(jr.key(3), 70))
    assert x.dtype == again.dtype == jnp.float32
    np.testing.assert_allclose(x, again, atol=1e-6)
    distances = scipy.spatial.distance.pdist(np.asarray(x).reshape(70, -1), "chebyshev")
    assert distances.min() > 0.1


def test_batches_are_functions_of_step_and_seed():
    first, again, *others = (NOISY.batch(step, 5, seed)[0] for step, seed in ((5, 2), (5, 2), (6, 2), (5, 3)))
    np.testing.assert_array_equal(first, again)
    for other in others:
        assert not (first == other).reshape(5, -1).all(axis=1).any()


@pytest.mark.slow
def test_splits_are_fixed_draws_of_their_own():
    data = DeadLeaves(resolution=3, r_min=1.0, r_max=2.0)
    train, test = (data.rows(split, 0, 20_000)[0] for split in ("train", "test"))
    assert train.shape == test.shape == (10_000, 3, 3, 1)
    np.testing.assert_array_equal(data.rows("test", 9_990, 10_005)[0], test[9_990:])
    assert not (train == test).reshape(10_000, -1).all(axis=1).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 0}, "resolution is 0: images need at least 1 pixel a side"),
        ({"r_min": 0.0}, "radii are 0.0 to 16.0: give a positive r_min and a larger r_max"),
        ({"r_max": 2.0}, "radii are 2.0 to 2.0: give a positive r_min and a larger r_max"),
        ({"r_max": math.inf}, "radii are 2.0 to inf: give a positive r_min"),
        ({"noise": 1.0}, "noise is 1.0: give at least 0 and less than 1"),
        ({"noise": math.nan}, "noise is nan: give at least 0 and less than 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DeadLeaves(**settings)
