import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import randomised

from sgm.nn import MLP, Condition, Conditioning, with_statistics

U = jnp.asarray([0.7, -1.2])
LEVEL = jnp.asarray(-0.6)


def test_waves_join_u_and_an_image():
    network = MLP((2,), 16, 1, frequencies=3, conditioning=Conditioning(image=(2, 2, 1)), key=jr.key(0))
    assert network.inlet.kernel.shape == (2 + 2 * 3 * 2 + 4, 16)


def test_standardised_params_join_u_and_are_zero_where_they_are_dropped():
    network = MLP((2,), 16, 1, conditioning=Conditioning(params=3, null=True), key=jr.key(0))
    network = with_statistics(network, np.asarray([1.0, 2.0, 3.0]), np.asarray([2.0, 2.0, 4.0]))
    assert network.inlet.kernel.shape == (2 + 3, 16)
    joined = network.embedding.standardised
    np.testing.assert_allclose(joined(Condition(params=[3.0, 2.0, -1.0])), [1.0, 0.0, -1.0])
    for dropped in (Condition(params=[np.nan, 2.0, -1.0], dropped=True), None):
        np.testing.assert_array_equal(joined(dropped), np.zeros(3))


def test_params_reach_the_input_where_the_embedding_does_not_carry_them():
    network = randomised(MLP((2,), 16, 1, conditioning=Conditioning(params=1), key=jr.key(0)))
    network = eqx.tree_at(lambda network: network.embedding.params.kernel, network, jnp.zeros((1, 8)))
    first, second = (network(LEVEL, U, Condition(params=[param])) for param in (0.0, 1.0))
    assert jnp.abs(first - second).max() > 1e-3


def test_the_frequencies_are_no_parameters():
    plain, with_waves = (jax.tree.leaves(MLP((2,), 16, 1, frequencies=n, key=jr.key(0))) for n in (0, 3))
    assert len(plain) == len(with_waves)


def test_a_negative_number_of_frequencies_raises():
    with pytest.raises(ValueError, match="MLP: frequencies = -1; pass frequencies >= 0"):
        MLP((2,), frequencies=-1, key=jr.key(0))
