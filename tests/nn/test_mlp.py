import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import randomised

from sgm.nn import MLP, Condition, Conditioning, with_statistics
from sgm.nn.mlp import waves

U = jnp.asarray([0.7, -1.2])


def level_of(sin):
    return jnp.log(jnp.tan(jnp.arcsin(sin)))


def test_waves_are_blurred_as_noise_of_the_level_blurs_them():
    blurred = U + 0.3 * jr.normal(jr.key(0), (200_000, 1, 2))
    angles = jnp.asarray([1.0, 2.0, 4.0])[:, None] * blurred
    expected = np.concatenate([jnp.cos(angles).mean(0), jnp.sin(angles).mean(0)])
    np.testing.assert_allclose(waves(U, level_of(0.3), 3), expected.reshape(-1), atol=0.01)


def test_waves_keep_their_precision_in_float64(float64):
    u, level = U.astype(jnp.float64), level_of(jnp.asarray(1e-3, jnp.float64))
    expected = np.exp(-0.5 * (32e-3) ** 2) * np.cos(32 * np.asarray(u))
    np.testing.assert_allclose(waves(u, level, 6)[10:12], expected, rtol=1e-12)


@pytest.mark.slow
def test_waves_change_an_output_fast_only_where_noise_is_low():
    network = randomised(MLP((2,), 32, 1, frequencies=8, key=jr.key(0)))
    low, high = (jnp.linalg.norm(jax.jacobian(lambda u, sin=sin: network(level_of(sin), u))(U)) for sin in (1e-3, 0.9))
    assert low > 10 * high


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
    first, second = (network(level_of(0.5), U, Condition(params=[param])) for param in (0.0, 1.0))
    assert jnp.abs(first - second).max() > 1e-3


def test_the_frequencies_are_no_parameters():
    plain, with_waves = (jax.tree.leaves(MLP((2,), 16, 1, frequencies=n, key=jr.key(0))) for n in (0, 3))
    assert len(plain) == len(with_waves)


def test_a_negative_number_of_frequencies_raises():
    with pytest.raises(ValueError, match="MLP: frequencies = -1; pass frequencies >= 0"):
        MLP((2,), frequencies=-1, key=jr.key(0))
