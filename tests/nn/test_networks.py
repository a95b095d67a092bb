import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import LEVEL, NETWORKS, SHAPE, U, call, each_network, largest_change, randomised

import sgm
from sgm.model import Denoised, Karras, Noise, Score, Velocity
from sgm.nn import DIT_PRESETS, MLP, Conditioning, DiT, UNet
from sgm.nn.dit import from_patches, positions, to_patches
from sgm.nn.layers import GroupNorm, Linear, SelfAttention, dropout, layer_norm, rms_norm
from sgm.nn.unet import ResidualBlock, double, halve

PREDICTIONS = [Noise(), Denoised(), Velocity(), Score(), Karras(0.5)]


def parameters(build):
    """The number of parameters, without making them."""
    network = eqx.filter_eval_shape(build)
    return sum(leaf.size for leaf in jax.tree.leaves(network) if isinstance(leaf, jax.ShapeDtypeStruct))


@each_network
def test_a_new_network_returns_zero(name):
    np.testing.assert_array_equal(call(NETWORKS[name](), LEVEL, U), 0)


@pytest.mark.slow_except("*-MLP", "Karras-DiT")
@each_network
@pytest.mark.parametrize(
    "prediction", [Noise(), Denoised(), Velocity(), Score(), Karras(0.5)], ids=lambda p: type(p).__name__
)
def test_a_new_model_has_its_predictions_neutral_estimate(name, prediction):
    level, cos, sin = jnp.log(jnp.tan(0.7)), jnp.cos(0.7), jnp.sin(0.7)
    estimate = sgm.ScoreModel(NETWORKS[name](), prediction, shape=SHAPE).predict(level, U)
    neutral = {  # E[x0 | u] where the output is 0
        "Noise": U / cos,
        "Score": U / cos,
        "Denoised": jnp.zeros_like(U),
        "Velocity": cos * U,
        "Karras": cos * 0.25 / (cos**2 * 0.25 + sin**2) * U,
    }[type(prediction).__name__]
    np.testing.assert_allclose(estimate.denoised, neutral, rtol=1e-5, atol=1e-6)


@each_network
def test_output_depends_on_level_and_on_all_of_u(name):
    network = randomised(NETWORKS[name]())
    output = call(network, LEVEL, U)
    assert output.shape == U.shape
    assert largest_change(call(network, LEVEL + 1, U), output) > 1e-3
    jacobian = jax.grad(lambda u: call(network, LEVEL, u).sum())(U)
    assert bool(jnp.all(jacobian != 0))


@pytest.mark.slow_except("DiT", "MLP")
@each_network
def test_a_second_output_is_one_of_the_same_shape(name):
    network = randomised(NETWORKS[name](outputs=2))
    output = call(network, LEVEL, U)
    assert output.shape == (8, 8, 2)
    first, second = jnp.split(output, 2, axis=-1)
    assert largest_change(first, second) > 1e-2
    model = sgm.ScoreModel(network, sgm.model.WithVariance(Karras(0.5)), shape=SHAPE)
    assert model.predict(LEVEL, U).log_variance.shape == SHAPE
    with pytest.raises(ValueError, match=f"{name}: outputs = 0; pass outputs >= 1"):
        NETWORKS[name](outputs=0)


@each_network
def test_dropout_needs_a_key(name):
    network = randomised(NETWORKS[name](dropout=0.5))
    np.testing.assert_array_equal(call(network, LEVEL, U), call(network, LEVEL, U))
    with_key = [call(network, LEVEL, U, key=jr.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(with_key[0], with_key[1])
    assert largest_change(with_key[0], with_key[2]) > 1e-3


@each_network
def test_bfloat16_stays_near_float32(name):
    plain, half = (randomised(NETWORKS[name](precision=precision)) for precision in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(half, eqx.is_inexact_array))} == {jnp.dtype("float32")}
    exact, rounded = call(plain, LEVEL, U), call(half, LEVEL, U)
    assert rounded.dtype == jnp.float32
    error = float(jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact))
    assert 1e-5 < error < 2e-2


@pytest.mark.slow_except("MLP")
@each_network
def test_networks_work_in_float64(name, float64):
    network = randomised(NETWORKS[name]())
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, network)
    u = U.astype(jnp.float64)
    output = call(network, jnp.asarray(0.3, jnp.float64), u)
    assert output.dtype == jnp.float64
    single = call(half, jnp.asarray(0.3, jnp.float32), u.astype(jnp.float32))
    np.testing.assert_allclose(output, single, rtol=1e-2, atol=1e-3)


@pytest.mark.slow_except("MLP")
@each_network
def test_remat_leaves_output_and_gradient_unchanged(name):
    def gradient(remat):
        network = randomised(NETWORKS[name](remat=remat, dropout=0.2))
        weights, rest = eqx.partition(network, eqx.is_inexact_array)
        loss = jax.jit(lambda weights: jnp.sum(eqx.combine(weights, rest)(LEVEL, U, key=jr.key(4)) ** 2))
        return jax.value_and_grad(loss)(weights)

    (value, plain), (other, again) = gradient(False), gradient(True)
    assert value == pytest.approx(float(other), rel=1e-5)
    for first, second in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        scale = float(jnp.abs(first).max()) + 1e-6
        np.testing.assert_allclose(first / scale, second / scale, atol=1e-5)


@each_network
def test_remat_is_in_the_gradient(name):
    def text(remat):
        network = NETWORKS[name](remat=remat)
        weights, rest = eqx.partition(network, eqx.is_inexact_array)
        return str(jax.make_jaxpr(lambda weights: eqx.combine(weights, rest)(LEVEL, U))(weights))

    # Without it a DiT keeps what its linear layers return, by a policy, and a UNet finds its norms again.
    assert text(True).count("policy=None") > text(False).count("policy=None")


def test_branches_start_at_zero():
    unet, dit, mlp = (NETWORKS[name]() for name in ("UNet", "DiT", "MLP"))
    blocks = [*unet.down, *unet.middle, *unet.up]
    attends = [block.attention.outlet for block in blocks if block.attention is not None]
    zeros = [block.conv2 for block in blocks] + attends + [block.second for block in mlp.blocks]
    zeros += [dit.blocks.each.modulation, dit.modulation]
    assert len(attends) >= 2
    assert not any(leaf.any() for layer in zeros for leaf in jax.tree.leaves(layer))


def test_resampling():
    x = jnp.arange(8.0).reshape(2, 4, 1)
    np.testing.assert_array_equal(halve(x)[..., 0], [[2.5, 4.5]])
    np.testing.assert_array_equal(double(x[:, :2])[..., 0], [[0, 0, 1, 1], [0, 0, 1, 1], [4, 4, 5, 5], [4, 4, 5, 5]])


def test_a_residual_block_keeps_the_variance_of_its_branches():
    block = ResidualBlock(4, 4, 8, 0.0, key=jr.key(0))
    x = jr.normal(jr.key(1), (4, 4, 4))
    # Its second convolution is zero, so the shortcut alone is left, over the root of two.
    np.testing.assert_allclose(call(block, x, jnp.ones(8), None), x / np.sqrt(2), rtol=1e-6)


def test_blocks_of_a_dit_drop_out_units_of_their_own():
    network = NETWORKS["DiT"](dropout=0.5)
    stacked = randomised(network).blocks
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), stacked)
    keys = []

    def spy(x, rate, key):
        keys.append(key)
        return dropout(x, rate, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgm.nn.dit.dropout", spy)
        text = str(jax.make_jaxpr(lambda u: eqx.tree_at(lambda n: n.blocks, network, same)(LEVEL, u, key=jr.key(4)))(U))
    # Two masks a block, from keys that the scan reads along its axis of three blocks.
    assert len(keys) == 2 and "key<fry>[3]" in text


@pytest.mark.parametrize("name", ["UNet", "DiT"])
def test_rectangles(name):
    shape = (8, 16, 3)
    assert eqx.filter_eval_shape(lambda: NETWORKS[name](shape)(LEVEL, jnp.ones(shape))).shape == shape


def test_a_dit_keeps_rows_and_columns_apart():
    network = randomised(NETWORKS["DiT"]())
    transposed = call(network, LEVEL, U.swapaxes(0, 1)).swapaxes(0, 1)
    assert largest_change(transposed, call(network, LEVEL, U)) > 1e-3
    places = positions((3, 5), 16)
    assert places.shape == (15, 16)
    assert len(np.unique(places.round(6), axis=0)) == 15
    np.testing.assert_allclose(places[7, :4], np.sin(0.1 ** np.arange(4)))  # row 1
    np.testing.assert_allclose(places[7, 12:], np.cos(2 * 0.1 ** np.arange(4)))  # column 2


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_round_trip(patch):
    image = jr.normal(jr.key(5), (8, 4, 3))
    patches = to_patches(image, patch)
    assert patches.shape == (32 // patch**2, patch**2 * 3)
    np.testing.assert_array_equal(from_patches(patches, (8 // patch, 4 // patch), patch), image)
    second = image[:patch, patch : 2 * patch] if patch < 4 else image[4:, :]
    np.testing.assert_array_equal(patches[1], second.reshape(-1))


# Table 1 of Peebles and Xie 2023, whose networks also return a variance.
@pytest.mark.parametrize(
    ("preset", "millions"), [("S/2", 33), ("B/4", 130), ("L/2", 458), ("XL/2", 675), ("XL/8", 676)]
)
def test_the_presets_have_the_sizes_of_the_paper(preset, millions):
    conditioning = Conditioning(classes=1000, null=True)
    count = parameters(lambda: DiT((32, 32, 4), **DIT_PRESETS[preset], conditioning=conditioning, key=jr.key(0)))
    assert count == pytest.approx(1e6 * millions, rel=0.01)


def test_the_presets_are_the_products_of_sizes_and_patches():
    assert set(DIT_PRESETS) == {f"{size}/{patch}" for size in ("S", "B", "L", "XL") for patch in (2, 4, 8)}


def test_parameters_of_a_dit_add_up():
    width, depth, tokens_in, embedding = 48, 5, 4 * 3, 48
    block = 6 * width * (embedding + 1) + 4 * width * (width + 1) + 2 * width // 4 + width * (8 * width + 5)
    ends = width * (tokens_in + 1) + 2 * width * (embedding + 1) + tokens_in * (width + 1)
    level = embedding * (32 + 1) + embedding * (embedding + 1)
    assert parameters(lambda: DiT((8, 8, 3), width, depth, 4, 2, key=jr.key(0))) == depth * block + ends + level


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        (dict(shape=(8, 8, 1), width=20, multipliers=(1, 2), blocks=1), 0.314),
        (dict(shape=(28, 28, 1), width=64, multipliers=(1, 2), blocks=1), 3.17),
        # Karras et al. 2022 report 56 million for their DDPM++, without scales in its modulation.
        (dict(shape=(32, 32, 3), width=128, multipliers=(2, 2, 2), blocks=4, attention=(16,)), 60.8),
    ],
)
def test_a_unet_has_any_size(options, millions):
    assert parameters(lambda: UNet(**options, key=jr.key(0))) == pytest.approx(1e6 * millions, rel=0.02)


def test_attention_is_where_it_is_named():
    network = UNet((16, 32, 1), 8, (1, 1, 2), 1, attention=(8,), key=jr.key(0))
    attends = [block.attention is not None for block in (*network.down, *network.middle, *network.up)]
    # Level 0, down, level 1, down, level 2; the middle; level 2 twice, up, level 1 twice, up, level 0 twice.
    expected = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert attends == [bool(mark) for mark in expected]


def test_attention_is_softmax_attention():
    layer = SelfAttention(6, 2, key=jr.key(3))
    x = jr.normal(jr.key(4), (5, 6))
    query, key, value = (part.reshape(5, 2, 3) for part in jnp.split(layer.inlet(x), 3, axis=-1))
    query, key = (part / jnp.sqrt((part**2).mean(-1, keepdims=True) + 1e-6) for part in (query, key))
    weights = jax.nn.softmax(jnp.einsum("phc,qhc->hpq", query, key) / 3**0.5)
    mixed = jnp.einsum("hpq,qhc->phc", weights, value).reshape(5, 6)
    np.testing.assert_allclose(call(layer, x), layer.outlet(mixed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP((2,), width=0, key=jr.key(0)), "MLP: width = 0; pass width >= 1"),
        (lambda: MLP((2,), depth=-1, key=jr.key(0)), "MLP: depth = -1; pass depth >= 1"),
        (lambda: UNet(SHAPE, dropout=1.0, key=jr.key(0)), "UNet: dropout = 1.0; pass 0 <= dropout < 1"),
        (lambda: UNet(SHAPE, multipliers=(), key=jr.key(0)), r"UNet: len\(multipliers\) = 0; pass"),
        (lambda: UNet(SHAPE, multipliers=(1, 0), key=jr.key(0)), r"UNet: multipliers\[1\] = 0; pass"),
        (lambda: DiT((8, 8, 0), key=jr.key(0)), r"DiT: shape = \(8, 8, 0\); pass \(length, channels\) or \(height"),
        (lambda: UNet((2,), key=jr.key(0)), r"UNet: shape = \(2,\); pass .*, or build an MLP"),
        (
            lambda: UNet((10, 8, 1), 8, (1, 1, 1), key=jr.key(0)),
            r"UNet: the height of \(10, 8, 1\) is 10, but .* multiples of 4, such as 8 or 12; .* pad=True",
        ),
        (
            lambda: UNet(SHAPE, attention=(7,), key=jr.key(0)),
            r"attention = \(7,\), but .* heights \[8, 4, 2\]; pass those",
        ),
        (
            lambda: DiT((9, 8, 1), key=jr.key(0)),
            r"DiT: the height of \(9, 8, 1\) is 9, but .* multiples of 2, such as 8 or 10; .* pad=True",
        ),
        (lambda: NETWORKS["UNet"]()(LEVEL, jnp.ones((7, 8, 1))), r"UNet: the height of \(7, 8, 1\) is 7"),
        (lambda: NETWORKS["DiT"]()(LEVEL, jnp.ones((7, 8, 1))), r"DiT: the height of \(7, 8, 1\) is 7"),
        (lambda: DiT(SHAPE, 36, heads=8, key=jr.key(0)), "DiT: width = 36 must be divisible by heads = 8"),
    ],
)
def test_sizes_have_their_range(build, message):
    with pytest.raises(ValueError, match=message):
        eqx.filter_eval_shape(build)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet(SHAPE, multipliers=(1, 1.5), key=jr.key(0)), r"UNet: multipliers\[1\] = 1.5; pass a whole"),
        (lambda: UNet(SHAPE, multipliers=2, key=jr.key(0)), r"UNet: multipliers = 2; pass .* such as \(1, 2, 2\)"),
        (lambda: UNet(SHAPE, 8.5, key=jr.key(0)), r"UNet: width = 8.5; pass a whole number, width >= 1"),
        (lambda: UNet(SHAPE, blocks=1.0, key=jr.key(0)), r"UNet: blocks = 1.0; pass a whole number"),
        (lambda: DiT(SHAPE, 32, 2.0, key=jr.key(0)), r"DiT: depth = 2.0; pass a whole number"),
        (lambda: MLP(SHAPE, "64", key=jr.key(0)), r"MLP: width = '64'; pass a whole number"),
    ],
)
@pytest.mark.usefixtures("types_unchecked")
def test_sizes_are_whole_numbers(build, message):
    with pytest.raises(TypeError, match=message):
        eqx.filter_eval_shape(build)


@each_network
@pytest.mark.usefixtures("types_unchecked")
def test_an_unknown_precision_raises(name):
    with pytest.raises(ValueError, match=r"precision = 'float16'; pass \"float32\" or"):
        NETWORKS[name](precision="float16")


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 16), (8, 2), (12, 3), (40, 10), (2, 1)])
def test_group_norm_normalises_each_group(channels, groups):
    norm = GroupNorm(channels)
    assert norm.groups == groups
    x = np.random.default_rng(7).normal(5, 3, (6, 6, channels)).astype(np.float32)
    y = np.asarray(call(norm, x)).reshape(6, 6, groups, -1)
    np.testing.assert_allclose(y.mean((0, 1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 3)), 1, atol=1e-3)


def test_group_norm_of_groups_and_eps():
    x = np.asarray(5 + 0.3 * jr.normal(jr.key(7), (6, 4, 12)))
    parts = x.reshape(6, 4, 3, 4)
    mean, var = (moment(parts, (0, 1, 3), keepdims=True) for moment in (np.mean, np.var))
    expected = ((parts - mean) / np.sqrt(var + 0.1)).reshape(x.shape)
    np.testing.assert_allclose(GroupNorm(12, groups=3, eps=0.1)(jnp.asarray(x)), expected, atol=1e-5)
    with pytest.raises(ValueError, match="groups = 5 does not divide 12 channels; pass one that does"):
        GroupNorm(12, groups=5)


def test_group_norm_keeps_its_digits_far_from_zero():
    x = jr.normal(jr.key(7), (16, 16, 8))
    np.testing.assert_allclose(GroupNorm(8)(x + 1000), GroupNorm(8)(x), atol=2e-3)


@pytest.mark.slow
def test_remat_saves_the_memory_of_a_dit():
    def memory(remat):
        weights, rest = eqx.partition(DiT((16, 16, 1), 32, 8, 2, 2, remat=remat, key=jr.key(0)), eqx.is_inexact_array)
        loss = lambda weights: jnp.sum(eqx.combine(weights, rest)(LEVEL, jnp.ones((16, 16, 1))) ** 2)  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(weights).compile().memory_analysis().temp_size_in_bytes

    assert memory(True) < 0.7 * memory(False)


def test_norms_of_features():
    x = 5 + 3 * jr.normal(jr.key(7), (4, 50))
    np.testing.assert_allclose(layer_norm(x).mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(layer_norm(x).var(-1), 1, atol=1e-4)
    np.testing.assert_allclose(
        rms_norm(x, 2 * jnp.ones(50)), 2 * x / jnp.sqrt((x**2).mean(-1, keepdims=True)), rtol=1e-5
    )


def test_linear_keeps_the_precision_of_its_input():
    layer = Linear(3, 2, key=jr.key(0))
    assert layer(jnp.ones((4, 3), jnp.bfloat16)).dtype == jnp.bfloat16
    np.testing.assert_allclose(
        layer(jnp.ones((4, 3))), jnp.broadcast_to(layer.kernel.sum(0) + layer.bias, (4, 2)), rtol=1e-5
    )


def test_dropout_keeps_the_mean():
    x = jnp.ones(10_000)
    y = dropout(x, 0.3, jr.key(8))
    assert float((y == 0).mean()) == pytest.approx(0.3, abs=0.02)
    assert float(y.mean()) == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(dropout(x, 0.3, None), x)


@each_network
def test_fixed_frequencies_and_positions_are_no_parameters(name):
    network = NETWORKS[name]()
    weights = eqx.filter(network, eqx.is_inexact_array)
    assert len(jax.tree.leaves(weights)) == len(jax.tree.leaves(eqx.filter(network, eqx.is_array)))
    first = network.embedding.first.kernel.shape
    assert first[0] == 32 and not any(leaf.shape == (16,) for leaf in jax.tree.leaves(network.embedding))
