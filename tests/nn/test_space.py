"""Networks of signals, images and volumes: one code, whose rank is that of the shape."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import LEVEL, call, largest_change, randomised

import sgm
from sgm.nn import Conditioning, DiT, UNet
from sgm.nn.conditioning import join_image
from sgm.nn.dit import positions
from sgm.nn.layers import SelfAttention, rotated, rotations_of

SHAPES = {"signal": (16, 2), "image": (8, 12, 1), "volume": (8, 4, 8, 1)}
BUILD = {
    "UNet": lambda shape, **options: UNet(
        shape, 8, (1, 2), 1, attention=(shape[0] + shape[0] % 2,), key=jr.key(0), **options
    ),
    "DiT": lambda shape, **options: DiT(shape, 24, 2, 2, 2, key=jr.key(0), **options),
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
each = pytest.mark.parametrize("name", BUILD)
u_of = lambda shape: jr.normal(jr.key(1), shape)  # noqa: E731


def shifted(x, by):
    return jnp.roll(x, by, tuple(range(x.ndim - 1)))


@pytest.mark.slow_except("*-DiT")
@each
@each_shape
def test_every_output_depends_on_every_input(name, shape):
    network, u = randomised(BUILD[name](shape)), u_of(shape)
    assert call(network, LEVEL, u).shape == shape
    gradient = jax.jit(jax.grad(lambda u: network(LEVEL, u)[(0,) * len(shape)]))(u)
    assert bool(jnp.all(gradient != 0))


@pytest.mark.slow_except("signal-DiT", "volume-DiT")
@each
@each_shape
def test_on_a_torus_a_shift_of_the_input_shifts_the_output(name, shape):
    network, u = randomised(BUILD[name](shape, periodic=True, rotary=True)), u_of(shape)
    output = call(network, LEVEL, u)
    # By one pair of entries, which the strides allow, it is exact but for rounding; by one entry it is not.
    np.testing.assert_allclose(call(network, LEVEL, shifted(u, 2)), shifted(output, 2), rtol=1e-5, atol=1e-5)
    assert largest_change(call(network, LEVEL, shifted(u, 1)), shifted(output, 1)) > 1e-3
    flat = randomised(BUILD[name](shape, rotary=True))
    assert largest_change(call(flat, LEVEL, shifted(u, 2)), shifted(call(flat, LEVEL, u), 2)) > 1e-3


@each
def test_an_image_on_another_grid_shifts_with_the_data_on_a_torus(name):
    shape, image = (8, 8, 1), jr.normal(jr.key(3), (4, 16, 2))
    network = randomised(BUILD[name](shape, periodic=True, rotary=True, conditioning=Conditioning(image=image.shape)))
    u = u_of(shape)
    output = call(network, LEVEL, u, sgm.Condition(image=image))
    moved = jnp.roll(image, (2, 8), (0, 1))  # of 4 by 16 pixels, half the torus
    again = call(network, LEVEL, shifted(u, 4), sgm.Condition(image=moved))
    np.testing.assert_allclose(again, shifted(output, 4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(6, 4), (4, 6), (8, 2), (3, 9), (5, 7)])
def test_resizing_on_a_torus_is_that_of_a_picture_tiled(old, new):
    image = jr.normal(jr.key(0), (old, 2))
    joined = join_image(jnp.zeros((new, 1)), image, periodic=True)[:, 1:]
    tiled = jax.image.resize(jnp.tile(image, (5, 1)), (5 * new, 2), "linear")[2 * new : 3 * new]
    np.testing.assert_allclose(joined, tiled, atol=1e-5)


@pytest.mark.slow_except("signal-*", "volume-DiT")
@each
@pytest.mark.parametrize("shape", [(13, 2), (7, 9, 1), (3, 5, 6, 1)], ids=SHAPES)
def test_odd_sizes_are_padded_inside_and_cropped(name, shape):
    with pytest.raises(
        ValueError, match=f"{name}: the .* is {shape[0]}, but the network is for multiples of 2, such as"
    ):
        BUILD[name](shape)
    network, u = randomised(BUILD[name](shape, pad=True)), u_of(shape)
    output = call(network, LEVEL, u)
    assert output.shape == shape
    # Padded by hand it is the same.
    even = jnp.pad(u, [(0, size % 2) for size in shape[:-1]] + [(0, 0)])
    by_hand = call(network, LEVEL, even)[tuple(slice(size) for size in shape[:-1])]
    np.testing.assert_allclose(output, by_hand, rtol=1e-5, atol=1e-6)


@each
def test_a_torus_that_cannot_be_divided_has_a_remedy_of_its_own(name):
    other = {"UNet": "use fewer levels", "DiT": "use another patch"}[name]
    with pytest.raises(ValueError, match=rf"such as 12 or 14; resize the data or {other}\.$"):
        BUILD[name]((13, 2), periodic=True)
    with pytest.raises(ValueError, match=rf"such as 12 or 14; resize the data or {other}, or pass pad=True\.$"):
        BUILD[name]((13, 2))


@each
def test_what_cannot_be_built(name):
    with pytest.raises(ValueError, match=f"{name}: pad and periodic are True"):
        BUILD[name]((16, 2), pad=True, periodic=True)
    with pytest.raises(ValueError, match=rf"{name}: the condition's image has shape \(4, 4, 1\), but .* 2 axes"):
        BUILD[name]((16, 2), conditioning=Conditioning(image=(4, 4, 1)))
    with pytest.raises(ValueError, match=r"shape = \(2, 2, 2, 2, 1\); pass \(length, channels\) or"):
        BUILD[name]((2, 2, 2, 2, 1))
    with pytest.raises(ValueError, match=r"shape = \(8, 8, 1\); pass \(length, channels\), or"):
        BUILD[name]((16, 1))(LEVEL, jnp.zeros((8, 8, 1)))


def test_a_head_needs_features_for_each_axis():
    key = jr.key(0)
    build = eqx.filter_eval_shape
    build(lambda: DiT((8, 8, 1), 24, 1, 6, rotary=True, key=key))  # four of each head, a pair for each axis
    with pytest.raises(ValueError, match=r"DiT: rotary is True, but a head has 3 features, and 2 axes need 4; .*heads"):
        build(lambda: DiT((8, 8, 1), 24, 1, 8, rotary=True, key=key))
    build(lambda: UNet((4, 4, 4, 1), 6, (1, 1), 1, rotary=True, key=key))
    with pytest.raises(ValueError, match=r"UNet: rotary is True, .* 4 features, and 3 axes need 6; pass a larger"):
        build(lambda: UNet((4, 4, 4, 1), 4, (1, 1), 1, rotary=True, key=key))


@each
@each_shape
def test_another_number_of_channels_is_named(name, shape):
    network, channels = BUILD[name](shape), shape[-1]
    with pytest.raises(ValueError, match=rf"{name}: u has shape .*, but .* built for .* of {channels} channels"):
        network(LEVEL, jnp.zeros((*shape[:-1], channels + 1)))


def test_rotations_tell_how_far_apart_places_are():
    angles = rotations_of((12,), 8, periodic=True)
    query, key = jr.normal(jr.key(0), (2, 1, 1, 8))
    products = jnp.einsum("hpc,hqc->pq", *(rotated(jnp.tile(x, (1, 12, 1)), angles) for x in (query, key)))
    for distance in range(12):  # the same at every place, around the torus
        around = products[jnp.arange(12), (jnp.arange(12) + distance) % 12]
        np.testing.assert_allclose(around, around[0], rtol=1e-4, atol=1e-5)
    assert float(jnp.std(products[0])) > 0.1
    flat = rotations_of((12,), 8, periodic=False)
    np.testing.assert_allclose(flat[5], 5 * 1e-4 ** (np.arange(4) / 4))


def test_attention_passes_over_what_is_not_seen():
    layer, x = SelfAttention(6, 2, key=jr.key(0)), jr.normal(jr.key(1), (5, 6))
    seen = jnp.asarray([True, False, True, True, False])
    among = layer(x[jnp.asarray([0, 2, 3])])
    np.testing.assert_allclose(layer(x, seen=seen)[jnp.asarray([0, 2, 3])], among, rtol=1e-5, atol=1e-6)


def test_positions_on_a_torus_make_whole_turns():
    places = positions((6,), 8, periodic=True)
    turns = 2 * np.pi * np.outer(np.arange(6), np.arange(1, 5)) / 6
    np.testing.assert_allclose(places, np.concatenate([np.sin(turns), np.cos(turns)], axis=1), atol=1e-12)
