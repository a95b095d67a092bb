import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import call, largest_change, randomised

from sgm.nn import MLP, UNet
from sgm.nn.waves import waves

U = jnp.asarray([0.7, -1.2])


def level_of(sin):
    return jnp.log(jnp.tan(jnp.arcsin(sin)))


def test_waves_are_blurred_as_noise_of_the_level_blurs_them():
    blurred = U + 0.3 * jr.normal(jr.key(0), (200_000, 1, 2))
    angles = jnp.asarray([1.0, 2.0, 4.0])[:, None] * blurred
    expected = np.stack([jnp.cos(angles).mean(0), jnp.sin(angles).mean(0)])
    np.testing.assert_allclose(waves(U, level_of(0.3), 3), expected, atol=0.01)


def test_waves_keep_their_precision_in_float64(float64):
    u, level = U.astype(jnp.float64), level_of(jnp.asarray(1e-3, jnp.float64))
    expected = np.exp(-0.5 * (32e-3) ** 2) * np.cos(32 * np.asarray(u))
    np.testing.assert_allclose(waves(u, level, 6)[0, 5], expected, rtol=1e-12)


@pytest.mark.slow
def test_waves_change_an_output_fast_only_where_noise_is_low():
    network = randomised(MLP((2,), 32, 1, frequencies=8, key=jr.key(0)))
    low, high = (jnp.linalg.norm(jax.jacobian(lambda u, sin=sin: network(level_of(sin), u))(U)) for sin in (1e-3, 0.9))
    assert low > 10 * high


@pytest.mark.slow_except("signal")
@pytest.mark.parametrize("shape", [(4, 2), (4, 2, 1), (2, 2, 2, 1)], ids=["signal", "image", "volume"])
def test_a_unet_of_waves_alone_has_their_period(shape):
    network = randomised(UNet(shape, 4, (1,), 1, frequencies=2, key=jr.key(0)))
    of_u = (..., slice(shape[-1]), slice(None))  # The kernel of u itself.
    network = eqx.tree_at(lambda network: network.inlet.kernel, network, replace_fn=lambda k: k.at[of_u].set(0.0))
    u, level = jr.normal(jr.key(1), shape), jnp.asarray(-2.0)
    first = call(network, level, u)
    np.testing.assert_allclose(call(network, level, u + 2 * jnp.pi), first, rtol=1e-4, atol=1e-5)
    assert largest_change(call(network, level, u + jnp.pi), first) > 0.01


def test_grey_levels_lie_at_one_phase_of_the_wave_that_is_one_of_them_long():
    middles = (jnp.arange(256.0) + 0.5) / 128 - 1
    last = waves(middles, jnp.asarray(-jnp.inf), 9, 2.0)[:, 8]
    np.testing.assert_allclose(last, np.broadcast_to([[-1.0], [0.0]], last.shape), atol=1e-4)


def test_a_wave_has_a_length():
    with pytest.raises(ValueError, match="UNet: longest_wave = 0; pass longest_wave > 0"):
        UNet((4, 1), 4, (1,), 1, frequencies=2, longest_wave=0, key=jr.key(0))
