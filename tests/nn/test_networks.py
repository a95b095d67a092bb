import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.nn import MLP, UNet
from sgm.nn.layers import Convolution, GroupNorm, dropout

LEVEL = jnp.asarray(0.3)
NETWORKS = {
    "MLP": lambda **options: MLP((8, 8, 1), 32, 2, key=jr.key(0), **options),
    "UNet": lambda **options: UNet((8, 8, 1), 8, (1, 2), 1, key=jr.key(0), **options),
}
U = jr.normal(jr.key(1), (8, 8, 1))
each_network = pytest.mark.parametrize("name", NETWORKS)


def randomised(network):
    """Zero-initialised layers hide everything behind them."""
    leaves, structure = jax.tree.flatten(network)
    keys = jr.split(jr.key(2), len(leaves))
    return jax.tree.unflatten(
        structure,
        [
            leaf + 0.2 * jr.normal(key, leaf.shape) if eqx.is_inexact_array(leaf) else leaf
            for leaf, key in zip(leaves, keys, strict=True)
        ],
    )


@each_network
def test_a_new_network_returns_zero(name):
    np.testing.assert_array_equal(NETWORKS[name]()(LEVEL, U), 0)


@each_network
def test_output_depends_on_level_and_on_all_of_u(name):
    network = randomised(NETWORKS[name]())
    output = network(LEVEL, U)
    assert output.shape == U.shape
    assert float(jnp.abs(network(LEVEL + 1, U) - output).max()) > 1e-3
    jacobian = jax.jacrev(lambda u: network(LEVEL, u).sum())(U)
    assert bool(jnp.all(jacobian != 0))


@each_network
def test_dropout_needs_a_key(name):
    network = randomised(NETWORKS[name](dropout=0.5))
    np.testing.assert_array_equal(network(LEVEL, U), network(LEVEL, U))
    with_key = [network(LEVEL, U, key=jr.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(with_key[0], with_key[1])
    assert float(jnp.abs(with_key[0] - with_key[2]).max()) > 1e-3


@each_network
def test_conditions_change_the_output_and_wrong_ones_raise(name):
    network = randomised(NETWORKS[name](params=2, classes=3))
    params, label = jnp.asarray([0.1, -0.4]), jnp.asarray(1)
    base = network(LEVEL, U, sgm.Condition(params=params, label=label))
    for other in (sgm.Condition(params=params + 1, label=label), sgm.Condition(params=params, label=label + 1)):
        assert float(jnp.abs(network(LEVEL, U, other) - base).max()) > 1e-3
    with pytest.raises(ValueError, match="built for a condition on `label`, but cond has none"):
        network(LEVEL, U, sgm.Condition(params=params))
    with pytest.raises(ValueError, match="built for a condition on `params`, but cond has none"):
        network(LEVEL, U)
    with pytest.raises(ValueError, match="built without a condition on `label`, but cond has one"):
        NETWORKS[name]()(LEVEL, U, sgm.Condition(label=label))
    with pytest.raises(ValueError, match="built without a condition on `image`"):
        NETWORKS[name]()(LEVEL, U, sgm.Condition(image=U))


def test_a_unet_reads_an_image_condition():
    network = randomised(NETWORKS["UNet"](image_channels=2))
    image = jnp.ones((8, 8, 2))
    outputs = [network(LEVEL, U, sgm.Condition(image=scale * image)) for scale in (1.0, 2.0)]
    assert float(jnp.abs(outputs[0] - outputs[1]).max()) > 1e-3


def test_a_unet_of_rectangles_and_any_depth():
    network = randomised(UNet((8, 16, 3), 8, (1, 1, 2, 2), 1, key=jr.key(0)))
    assert network(LEVEL, jnp.ones((8, 16, 3))).shape == (8, 16, 3)
    with pytest.raises(ValueError, match=r"UNet: with 3 levels, .* divisible by 4, but they are \(10, 8\); pass fewer"):
        UNet((10, 8, 1), 8, (1, 1, 1), key=jr.key(0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP((2,), width=0, key=jr.key(0)), "MLP: width = 0; pass width >= 1"),
        (lambda: MLP((2,), depth=-1, key=jr.key(0)), "MLP: depth = -1; pass depth >= 1"),
        (lambda: UNet((8, 8, 1), dropout=1.0, key=jr.key(0)), "UNet: dropout = 1.0; pass 0 <= dropout < 1"),
    ],
)
def test_sizes_have_their_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_convolution_is_the_sum_it_says():
    layer = Convolution(2, 3, key=jr.key(3))
    x = jr.normal(jr.key(4), (5, 6, 2))
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    expected = jnp.einsum("ijc,ijco->o", padded[2:5, 3:6], layer.kernel)
    np.testing.assert_allclose(layer(x)[2, 3], expected, rtol=1e-5, atol=1e-6)
    halved = Convolution(2, 3, stride=2, key=jr.key(3))(jr.normal(jr.key(4), (4, 6, 2)))
    assert halved.shape == (2, 3, 3)


def test_convolution_keeps_the_scale():
    x = jr.normal(jr.key(5), (32, 32, 64))
    assert float(Convolution(64, 64, key=jr.key(6))(x).std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 16), (8, 2), (12, 3), (40, 10), (2, 1)])
def test_group_norm_normalises_each_group(channels, groups):
    norm = GroupNorm(channels)
    assert norm.groups == groups
    y = norm(5 + 3 * jr.normal(jr.key(7), (6, 6, channels))).reshape(6, 6, groups, -1)
    np.testing.assert_allclose(y.mean((0, 1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 3)), 1, atol=1e-3)


def test_dropout_keeps_the_mean():
    x = jnp.ones(10_000)
    y = dropout(x, 0.3, jr.key(8))
    assert float((y == 0).mean()) == pytest.approx(0.3, abs=0.02)
    assert float(y.mean()) == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(dropout(x, 0.3, None), x)


def test_the_frequencies_of_the_level_are_no_parameters():
    shapes = {leaf.shape for leaf in jax.tree.leaves(eqx.filter(NETWORKS["MLP"]().embedding, eqx.is_inexact_array))}
    assert shapes == {(8, 32), (8,), (8, 8)}
