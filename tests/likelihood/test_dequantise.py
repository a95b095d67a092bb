import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.likelihood import dequantise, quantise
from sgm.model import Gaussian

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("count", "low", "high"), [(256, -1.0, 1.0), (17, -1.0, 1.0), (2, 0.0, 1.0), (5, -3.0, 7.0)])
def test_dequantised_levels_fill_their_bins_and_come_back(count, low, high):
    levels = jnp.tile(jnp.arange(count), 400)
    x = dequantise(levels, count, jr.key(0), low, high)
    # Noise within a rounding of 1 comes out at the lower end of the next bin.
    moved = quantise(x, count, low, high) - levels
    assert set(np.unique(moved)) <= {0, 1} and np.mean(moved) < 1e-4
    assert float(x.min()) >= low and float(x.max()) <= high
    within = (np.asarray(x) - low) / (high - low) * count - np.asarray(levels)
    np.testing.assert_allclose([within.mean(), within.var()], [0.5, 1 / 12], atol=0.02)


def test_values_outside_go_to_the_nearest_level():
    np.testing.assert_array_equal(quantise(jnp.asarray([-5.0, 1.0, 9.0]), 4), [0, 3, 3])


@pytest.mark.parametrize(
    ("levels", "low", "high"), [(256, -1.0, 1.0), (256, 0.0, 255.0), (17, -1.0, 1.0), (2, 0.0, 1.0)]
)
def test_the_uniform_density_has_log2_levels_bits(levels, low, high):
    dim = 12
    log_prob = jnp.asarray(-dim * np.log(high - low))
    assert float(sgm.bits_per_dim(log_prob, dim, levels=levels, low=low, high=high)) == pytest.approx(np.log2(levels))


def test_bits_do_not_depend_on_the_range_of_the_data():
    """One distribution over 16 levels, its density written in three units."""
    bits = []
    for low, high in ((-1.0, 1.0), (0.0, 1.0), (0.0, 16.0)):
        scale = (high - low) / 2
        density = Gaussian(jnp.full(3, (low + high) / 2), 0.1 * scale**2 * jnp.eye(3))
        x = (low + high) / 2 + scale * jnp.asarray([0.1, -0.4, 0.3])
        bits.append(sgm.bits_per_dim(density.log_prob(x), 3, levels=16, low=low, high=high))
    np.testing.assert_allclose(bits, bits[0], rtol=1e-5)


def test_bits_of_dequantised_data_bound_those_of_the_levels():
    """For a density that is constant in each bin the bound is the discrete entropy itself."""
    probabilities = jnp.asarray([0.5, 0.25, 0.125, 0.125])
    levels = jr.choice(jr.key(1), 4, (20_000,), p=probabilities)
    x = dequantise(levels, 4, jr.key(2))
    log_density = jnp.log(probabilities[quantise(x, 4)] / 0.5)
    assert float(sgm.bits_per_dim(log_density, 1, levels=4).mean()) == pytest.approx(1.75, abs=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dequantise(jnp.arange(3), 0, jr.key(0)), "dequantise: count = 0; pass count >= 1"),
        (lambda: sgm.bits_per_dim(jnp.zeros(()), 0), "bits_per_dim: dim = 0"),
        (lambda: sgm.bits_per_dim(jnp.zeros(()), 4, levels=0), "bits_per_dim: levels = 0"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_levels_of_outside_are_checked_inside_a_trace():
    levels = jnp.asarray([[1, 3]])
    assert jax.jit(lambda key: dequantise(levels, 4, key))(jr.key(0)).shape == (1, 2)
    with pytest.raises(ValueError, match=r"dequantise: levels lie in 1 \.\.\. 3; pass levels from 0 to count - 1 = 2"):
        jax.jit(lambda key: dequantise(levels, 3, key))(jr.key(0))
