import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import COND, EVERYTHING, LEVEL, call, largest_change, randomised

from sgm.nn import Conditioning, ConvDense
from sgm.nn.conv_dense import MultiScaleConvolution, bumps
from sgm.sde import DiscreteChain, linear_betas, sohl_dickstein_betas

SHAPE = (8, 8, 3)
U = jr.normal(jr.key(1), SHAPE)
SIZES = dict(convolutions=2, width=6, scales=2, dense=2, dense_width=16, upper_width=12, bumps=4)
PARTS = {
    "both": (SHAPE, SIZES),
    "convolutions": (SHAPE, SIZES | dict(dense=0)),
    "dense": (SHAPE, SIZES | dict(convolutions=0)),
    "planar": ((2,), dict(dense_width=16, dense_outputs=8, bumps=4)),
    "vectors": ((5, 2), SIZES | dict(convolutions=0)),
}
each_kind = pytest.mark.parametrize("kind", PARTS)


def built(kind="both", **options):
    shape, sizes = PARTS[kind]
    return randomised(ConvDense(shape, **(sizes | options), key=jr.key(0)))


def example(kind):
    return jr.normal(jr.key(1), PARTS[kind][0])


def basis(steps, count):
    """The temporal basis of 2015 as an array (steps, count), bump by bump, in float64."""
    x, centres = np.linspace(-1, 1, steps), np.linspace(-1, 1, count)
    width = (centres[1] - centres[0]) / 2
    heights = np.stack([np.exp(-((x - centre) ** 2) / (2 * width**2)) for centre in centres], axis=1)
    return heights / heights.sum(1, keepdims=True)


def levels_of(betas):
    """log tan(theta) at k = 1 ... N, in float64."""
    kept = np.cumprod(1 - betas)
    return 0.5 * np.log((1 - kept) / kept)


class TestReadout:
    @pytest.mark.parametrize("count", [2, 10])
    def test_bumps_are_those_of_the_published_code(self, float64, count):
        found = jax.vmap(lambda position: bumps(position, count))(jnp.linspace(-1, 1, 60))
        np.testing.assert_allclose(found, basis(60, count), rtol=1e-11)

    @pytest.mark.parametrize("betas", [linear_betas(500), sohl_dickstein_betas(40)], ids=["linear", "2015"])
    def test_output_at_step_k_is_the_coefficients_times_the_bumps(self, betas):
        chain, steps = DiscreteChain(betas), len(betas)
        network = built(noise_levels=-chain.log_snr(np.arange(1, steps + 1)) / 2)
        coefficients = np.asarray(eqx.filter_jit(network.coefficients)(U), np.float64)
        assert coefficients.shape == (8, 8, 6, 4)
        k = np.unique(np.linspace(1, steps, 12).astype(int))
        levels = jnp.asarray(levels_of(betas)[k - 1], jnp.float32)
        outputs = jax.jit(jax.vmap(lambda level: network(level, U)))(levels)
        expected = np.einsum("hwij,kj->khwi", coefficients, basis(steps, 4)[k - 1])
        np.testing.assert_allclose(outputs, expected, atol=2e-4 * np.abs(expected).max())

    def test_position_is_linear_between_steps_and_constant_beyond(self):
        position = jax.vmap(built("planar", noise_levels=np.asarray([-2.0, 0.0, 1.0])).position)
        found = position(jnp.asarray([-9.0, -2.0, -1.0, 0.0, 0.25, 1.0, 9.0]))
        np.testing.assert_allclose(found, [-1, -1, -0.5, 0, 0.25, 1, 1], atol=1e-6)

    def test_position_without_levels_is_that_of_a_chain_of_2015(self):
        # Each step of such a chain takes 1/N of the data's variance, so that sin(theta)^2 = k/N.
        k = np.arange(1, 1000)
        levels = 0.5 * np.log(k / (1000 - k))
        position = jax.vmap(built("planar").position)
        np.testing.assert_allclose(position(jnp.asarray(levels, jnp.float32)), 2 * k / 1000 - 1, atol=1e-6)
        # The published one adds 1e-3 at its first step and leaves 1/N at its last.
        found = position(jnp.asarray(levels_of(sohl_dickstein_betas(1000)), jnp.float32))
        np.testing.assert_allclose(found, np.linspace(-1, 1, 1000), atol=5e-3)

    def test_levels_are_never_trained(self):
        networks = [built("planar", noise_levels=levels) for levels in (None, np.linspace(-3, 3, 7))]
        counts = [len(jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array))) for network in networks]
        assert counts[0] == counts[1]


class TestScales:
    @pytest.mark.parametrize("scales", [1, 2, 3])
    def test_each_scale_has_a_convolution_and_a_leaky_relu(self, scales):
        layer = randomised(MultiScaleConvolution(3, 5, scales, key=jr.key(0)))
        x = jr.normal(jr.key(1), (8, 12, 3))
        expected = np.zeros((8, 12, 5))
        for scale, convolution in enumerate(layer.convolutions):
            side = 2**scale
            coarse = np.asarray(x).reshape(8 // side, side, 12 // side, side, 3).mean((1, 3))
            padded = np.pad(coarse, ((1, 1), (1, 1), (0, 0)))
            y = sum(
                padded[i : i + coarse.shape[0], j : j + coarse.shape[1]] @ np.asarray(convolution.kernel[i, j])
                for i in range(3)
                for j in range(3)
            ) + np.asarray(convolution.bias)
            expected += np.where(y > 0, y, 0.05 * y).repeat(side, 0).repeat(side, 1) / scales
        np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


class TestNetwork:
    @each_kind
    def test_a_new_network_returns_zero(self, kind):
        shape, sizes = PARTS[kind]
        output = call(ConvDense(shape, **sizes, key=jr.key(0)), LEVEL, example(kind))
        np.testing.assert_array_equal(output, np.zeros((*shape[:-1], 2 * shape[-1])))

    @each_kind
    def test_output_has_twice_the_channels_and_depends_on_level_and_u(self, kind):
        network, u = built(kind), example(kind)
        output = call(network, LEVEL, u)
        assert output.shape == (*u.shape[:-1], 2 * u.shape[-1])
        assert largest_change(call(network, LEVEL + 1, u), output) > 1e-3
        assert bool(jnp.all(jax.grad(lambda u: call(network, LEVEL, u).sum())(u) != 0))

    def test_the_lower_parts_are_joined_by_the_roots_of_their_widths(self):
        network = built(upper=1)
        conv, dense = U, U.reshape(-1)
        for layer in network.convolution_layers:
            conv = call(layer, conv)
        for layer in network.dense_layers:
            dense = jnp.where((y := dense @ layer.linear.kernel + layer.linear.bias) > 0, y, 0.05 * y)
        features = np.concatenate([conv / np.sqrt(6), dense.reshape(8, 8, 2) / np.sqrt(2)], axis=-1)
        expected = (features @ network.outlet.kernel + network.outlet.bias).reshape(8, 8, 6, 4)
        np.testing.assert_allclose(call(network.coefficients, U), expected, rtol=1e-4, atol=1e-4)

    def test_parameters_add_up(self):
        # The network for CIFAR-10 of the published code, layer by layer, on smaller images.
        options = dict(convolutions=6, width=10, dense=6, dense_width=20, dense_outputs=5, upper=4, upper_width=9)
        network = eqx.filter_eval_shape(lambda: ConvDense(SHAPE, **options, scales=2, key=jr.key(0)))
        conv = 2 * (9 * 3 * 10 + 10 + 5 * (9 * 10 * 10 + 10))
        dense = (192 + 1) * 20 + 4 * 21 * 20 + 21 * 64 * 5
        upper = (15 + 1) * 9 + 2 * 10 * 9 + 10 * (3 * 2 * 10)
        assert sum(leaf.size for leaf in jax.tree.leaves(network) if hasattr(leaf, "size")) == conv + dense + upper

    @pytest.mark.slow_except("both", "planar")
    @each_kind
    def test_every_parameter_has_a_finite_gradient(self, kind):
        network = built(kind, noise_levels=np.linspace(-3, 3, 50))
        gradient = eqx.filter_jit(eqx.filter_grad(lambda network: jnp.sum(network(LEVEL, example(kind)) ** 2)))(network)
        for leaf in jax.tree.leaves(gradient):
            assert bool(jnp.all(jnp.isfinite(leaf))) and bool(jnp.any(leaf != 0))

    @pytest.mark.slow_except("both", "planar")
    @each_kind
    def test_a_batch_is_its_examples(self, kind):
        network, levels = built(kind), jnp.asarray([-1.0, 0.0, 2.0])
        u = jr.normal(jr.key(2), (3, *PARTS[kind][0]))
        batch = eqx.filter_jit(eqx.filter_vmap(lambda level, u: network(level, u)))(levels, u)
        single = [call(network, level, one) for level, one in zip(levels, u, strict=True)]
        np.testing.assert_allclose(batch, np.stack(single), rtol=1e-4, atol=1e-4)

    @pytest.mark.slow_except("both", "planar")
    @each_kind
    def test_dropout_needs_a_key(self, kind):
        network, u = built(kind, dropout=0.5), example(kind)
        np.testing.assert_array_equal(call(network, LEVEL, u), call(built(kind), LEVEL, u))
        with_key = [call(network, LEVEL, u, key=jr.key(seed)) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(with_key[0], with_key[1])
        assert largest_change(with_key[0], with_key[2]) > 1e-3

    def test_float64(self, float64):
        network = built(noise_levels=np.linspace(-3, 3, 50))
        output = call(network, jnp.asarray(0.3, jnp.float64), jnp.asarray(U, jnp.float64))
        assert output.dtype == jnp.float64

    def test_bfloat16_stays_near_float32(self):
        plain, half = (built(precision=precision, conditioning=EVERYTHING) for precision in ("float32", "bfloat16"))
        exact, rounded = call(plain, LEVEL, U, COND), call(half, LEVEL, U, COND)
        assert rounded.dtype == jnp.float32
        assert 1e-5 < float(jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact)) < 2e-2

    def test_remat_leaves_the_gradient_unchanged(self):
        def gradient(remat):
            network = built(remat=remat, dropout=0.2)
            loss = eqx.filter_grad(lambda network: jnp.sum(network(LEVEL, U, key=jr.key(4)) ** 2))
            return jax.tree.leaves(eqx.filter_jit(loss)(network)), str(eqx.filter_make_jaxpr(loss)(network)[0])

        (plain, without), (again, within) = gradient(False), gradient(True)
        for first, second in zip(plain, again, strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5 * float(jnp.abs(first).max()))
        assert "policy=None" in within and "policy=None" not in without

    @pytest.mark.parametrize(
        ("shape", "options", "message"),
        [
            ((2,), dict(convolutions=2), r"ConvDense: shape = \(2,\); pass \(height, width, channels\)"),
            ((6, 8, 1), dict(scales=3), r"ConvDense: the height of \(6, 8, 1\) is 6, but .* multiples of 4"),
            ((2,), dict(dense=0), r"ConvDense: convolutions = 0, dense = 0; pass one of them >= 1"),
            (SHAPE, dict(dense=-1), r"ConvDense: dense = -1; pass dense >= 0"),
            (SHAPE, dict(bumps=1), "ConvDense: bumps = 1; pass bumps >= 2"),
            (SHAPE, dict(upper=0), "ConvDense: upper = 0; pass upper >= 1"),
            (SHAPE, dict(dropout=1.0), "ConvDense: dropout = 1.0; pass 0 <= dropout < 1"),
            ((), {}, r"ConvDense: shape = \(\); pass"),
            (
                (2,),
                dict(noise_levels=np.asarray([0.0, 1.0, 1.0])),
                r"ConvDense: noise_levels = \[0. 1. 1.\]; pass .* increasing",
            ),
            ((2,), dict(noise_levels=np.asarray([0.0])), r"ConvDense: noise_levels = \[0.\]; pass two or more"),
            ((2,), dict(noise_levels=np.asarray([-np.inf, 0.0])), r"ConvDense: noise_levels = \[-inf   0.\]"),
        ],
    )
    def test_options_have_their_range(self, shape, options, message):
        with pytest.raises(ValueError, match=message):
            ConvDense(shape, **options, key=jr.key(0))


class TestCondition:
    @pytest.mark.slow_except("planar", "convolutions")
    @pytest.mark.parametrize("kind", ["both", "convolutions", "planar"])
    def test_each_part_changes_the_output(self, kind):
        network, u = built(kind, conditioning=EVERYTHING), example(kind)
        output = call(network, LEVEL, u, COND)
        changes = (
            dict(params=COND.params + jnp.asarray([1.0, 0.0])),
            dict(label=COND.label + 1),
            dict(image=COND.image.at[3, 5, 1].add(3.0)),
            dict(dropped=jnp.asarray(True)),
        )
        for change in changes:
            changed = call(network, LEVEL, u, dataclasses.replace(COND, **change))
            assert largest_change(changed, output) > 1e-4, change

    def test_a_dropped_condition_is_the_learned_null(self):
        network = built(conditioning=EVERYTHING)
        dropped = call(network, LEVEL, U, dataclasses.replace(COND, dropped=jnp.asarray(True)))
        np.testing.assert_allclose(dropped, call(network, LEVEL, U), rtol=1e-4, atol=1e-4)

    def test_the_level_enters_by_the_readout_alone(self):
        # With as many levels as bumps, the outputs at their centres are all that those elsewhere are made of.
        network = built("planar", conditioning=EVERYTHING, noise_levels=np.linspace(-2, 2, 4))
        at = jax.jit(jax.vmap(lambda level: network(level, example("planar"), COND)))
        weights = np.linalg.solve(basis(4, 4).T, np.asarray(bumps(network.position(jnp.asarray(0.6)), 4)))
        expected = np.einsum("k,ki->i", weights, at(jnp.linspace(-2, 2, 4)))
        np.testing.assert_allclose(at(jnp.asarray([0.6]))[0], expected, rtol=1e-3, atol=1e-4)

    def test_a_condition_must_be_that_of_the_network(self):
        with pytest.raises(ValueError, match=r"cond has `params` .*, but the network was built for no parts"):
            call(built(), LEVEL, U, COND)
        with pytest.raises(ValueError, match="cond has no parts, but the network was built for `label`"):
            call(built(conditioning=Conditioning(classes=3)), LEVEL, U)
