import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import COND, EVERYTHING, LEVEL, NETWORKS, SHAPE, U, call, each_network, largest_change, randomised

import sgm
from sgm.nn import Conditioning, with_statistics
from sgm.nn.conditioning import join_image


def built(name, conditioning):
    return randomised(NETWORKS[name](conditioning=conditioning))


@pytest.mark.slow_except("DiT", "MLP")
@each_network
def test_each_part_of_the_condition_changes_the_output(name):
    network = built(name, EVERYTHING)
    base = call(network, LEVEL, U, COND)
    changes = (
        dict(params=COND.params + jnp.asarray([1.0, 0.0])),
        dict(params=COND.params + jnp.asarray([0.0, 1.0])),
        dict(label=COND.label + 1),
        dict(image=COND.image.at[0, 0, 0].add(3.0)),
        dict(image=COND.image.at[3, 5, 1].add(3.0)),
        dict(dropped=jnp.asarray(True)),
    )
    for change in changes:
        assert largest_change(call(network, LEVEL, U, dataclasses.replace(COND, **change)), base) > 1e-4, change


@pytest.mark.slow_except("parts[0-2]-MLP", "parts[3-5]-DiT")
@each_network
@pytest.mark.parametrize(
    "parts", [("params",), ("label",), ("image",), ("params", "image"), ("params", "label"), ("label", "image")]
)
def test_any_combination_of_parts(name, parts):
    sizes = {"params": ("params", 2), "label": ("classes", 3), "image": ("image", (4, 6, 2))}
    network = built(name, Conditioning(**dict(sizes[part] for part in parts)))
    cond = sgm.Condition(**{part: getattr(COND, part) for part in parts})
    assert bool(jnp.all(jnp.isfinite(call(network, LEVEL, U, cond))))
    with pytest.raises(ValueError, match="cond has no parts, but the network was built for"):
        call(network, LEVEL, U)
    with pytest.raises(ValueError, match=r"cond has .*, but the network was built for .*; pass a Condition with just"):
        call(network, LEVEL, U, dataclasses.replace(COND, dropped=None))


@pytest.mark.slow_except("DiT", "MLP")
@each_network
def test_a_dropped_condition_is_the_learned_null(name):
    network = built(name, EVERYTHING)
    other = sgm.Condition(params=COND.params + 9, label=COND.label * 0, image=COND.image + 9, dropped=jnp.asarray(True))
    outputs = [
        call(network, LEVEL, U, cond) for cond in (dataclasses.replace(COND, dropped=jnp.asarray(True)), other, None)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_allclose(outputs[0], outputs[2], rtol=1e-4, atol=1e-5)
    embedding = eqx.tree_at(lambda e: (e.null, e.null_image), network.embedding, replace_fn=lambda null: null + 1)
    moved = eqx.tree_at(lambda network: network.embedding, network, embedding)
    assert largest_change(call(moved, LEVEL, U, other), outputs[0]) > 1e-3
    np.testing.assert_array_equal(call(moved, LEVEL, U, COND), call(network, LEVEL, U, COND))


@pytest.mark.slow_except("DiT")
@pytest.mark.parametrize("name", ["UNet", "DiT"])
def test_an_image_is_resized_to_the_grid_of_the_data(name):
    flat = sgm.Condition(image=COND.image)
    same = sgm.Condition(image=jax.image.resize(COND.image, (8, 8, 2), "linear"))
    outputs = [call(built(name, Conditioning(image=cond.image.shape)), LEVEL, U, cond) for cond in (flat, same)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


def test_a_larger_image_is_averaged():
    joined = join_image(jnp.zeros((2, 2, 1)), jnp.arange(64.0).reshape(8, 8, 1))
    # Antialiased: a checkerboard of pixels is grey, not one of its colours.
    checks = jnp.asarray(np.indices((8, 8)).sum(0) % 2, jnp.float32)[..., None]
    np.testing.assert_allclose(join_image(jnp.zeros((2, 2, 1)), checks)[..., 1], 0.5, atol=0.1)
    assert joined.shape == (2, 2, 2) and float(joined[0, 0, 1]) < float(joined[1, 1, 1])


@pytest.mark.slow_except("DiT", "MLP")
@each_network
def test_an_image_of_integers_is_one_of_reals(name):
    network = built(name, Conditioning(image=(4, 6, 2), null=True))
    integers = jr.randint(jr.key(5), (4, 6, 2), 0, 4)
    for dropped in (False, True):
        conds = [sgm.Condition(image=image, dropped=dropped) for image in (integers, integers.astype(jnp.float32))]
        np.testing.assert_array_equal(*(call(network, LEVEL, U, cond) for cond in conds))


@pytest.mark.usefixtures("types_unchecked")
def test_a_network_refuses_what_is_no_condition_of_one_example():
    network = built("MLP", EVERYTHING)
    for cond in ({"label": 1}, 1):
        with pytest.raises(TypeError, match=r"network: cond is a (dict|int); pass a Condition"):
            network(LEVEL, U, cond)
    batch = jax.tree.map(lambda part: part[None], COND)
    with pytest.raises(ValueError, match=r"network: cond has the batch axes \[\(1,\)\], .* use jax\.vmap"):
        network(LEVEL, U, batch)


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        (sgm.Condition(params=jnp.ones(3)), r"cond.params has shape \(3,\), but the network was built for \(2,\)"),
        (sgm.Condition(label=jnp.asarray(3)), "cond.label = 3; pass labels from 0 to 2"),
        (sgm.Condition(label=jnp.asarray(-1)), "cond.label = -1; pass labels from 0 to 2"),
        (sgm.Condition(image=jnp.ones((4, 6, 1))), r"cond.image has shape \(4, 6, 1\), but .* built for \(4, 6, 2\)"),
        (sgm.Condition(image=jnp.ones((6, 4, 2))), r"cond.image has shape \(6, 4, 2\)"),
    ],
)
@each_network
def test_parts_of_another_size_raise(name, cond, message):
    parts = {"params": cond.params, "classes": cond.label, "image": cond.image}
    sizes = {"params": 2, "classes": 3, "image": (4, 6, 2)}
    network = NETWORKS[name](
        conditioning=Conditioning(**{k: sizes[k] for k, part in parts.items() if part is not None})
    )
    with pytest.raises(ValueError, match=message):
        network(LEVEL, U, cond)


def test_dropping_needs_a_null():
    network = NETWORKS["MLP"](conditioning=Conditioning(classes=3))
    with pytest.raises(ValueError, match=r"without a null .* null=True\) and train it with Loss\(condition_dropout"):
        call(network, LEVEL, U, sgm.Condition(label=jnp.asarray(1), dropped=jnp.asarray(True)))


@pytest.mark.parametrize("options", [dict(params=0), dict(classes=-2), dict(image=(4, 0, 1)), dict(classes=2.5)])
@pytest.mark.usefixtures("types_unchecked")
def test_sizes_are_positive(options):
    with pytest.raises(ValueError, match=r"Conditioning: \w+ = .*; pass integers of 1 or more, or leave it out"):
        Conditioning(**options)


@pytest.mark.usefixtures("types_unchecked")
def test_an_image_has_a_channel_axis():
    with pytest.raises(ValueError, match=r"image = \(4,\); pass its shape, such as \(height, width, channels\)"):
        Conditioning(image=(4,))


def test_parts_may_be_lists_and_numbers():
    given = sgm.Condition(params=[0.5, 1.0], label=2, image=np.zeros((4, 6, 2)), dropped=False)
    expected = sgm.Condition(
        params=jnp.asarray([0.5, 1.0]), label=jnp.asarray(2), image=jnp.zeros((4, 6, 2)), dropped=jnp.asarray(False)
    )
    assert eqx.tree_equal(given, expected)


class TestOfAModel:
    model = sgm.ScoreModel(built("MLP", Conditioning(classes=3, params=2)), shape=SHAPE)
    cond = sgm.Condition(label=jnp.asarray([0, 5]), params=jnp.zeros((2, 2)))

    @pytest.mark.parametrize("call", ["sample", "log_prob", "score_matching_loss"])
    def test_a_wrong_condition_is_caught_where_it_enters(self, call):
        calls = {
            "sample": lambda: sgm.sample(sgm.VP(), self.model, jr.key(0), 2, cond=self.cond),
            "log_prob": lambda: sgm.log_prob(sgm.VP(), self.model, jnp.stack([U, U]), jr.key(0), cond=self.cond),
            "score_matching_loss": lambda: sgm.score_matching_loss(
                sgm.VP(), self.model, jnp.stack([U, U]), jr.key(0), cond=self.cond
            ),
        }
        name = "Loss" if call == "score_matching_loss" else call
        with pytest.raises(ValueError, match=rf"{name}: cond.label = \[0 5\]; pass labels from 0 to 2"):
            calls[call]()

    @pytest.mark.usefixtures("types_unchecked")
    def test_a_condition_of_another_type_is_caught(self):
        with pytest.raises(TypeError, match=r"sample: cond is a dict; pass a Condition\("):
            sgm.sample(sgm.VP(), self.model, jr.key(0), 2, cond={"label": 0})  # pyright: ignore[reportArgumentType]

    @pytest.mark.usefixtures("types_unchecked")
    def test_a_label_that_is_no_integer_is_caught(self):
        cond = sgm.Condition(label=1.0, params=jnp.zeros(2))
        with pytest.raises(ValueError, match=r"cond\.label has dtype float32; pass integers from 0 to 2"):
            sgm.sample(sgm.VP(), self.model, jr.key(0), 2, cond=cond)

    def test_a_traced_label_outside_the_classes_is_flagged_by_nan(self):
        def losses(label):
            cond = sgm.Condition(label=label, params=jnp.zeros(2))
            return self.model.predict(jnp.asarray(0.5), U, cond).velocity

        outputs = jax.jit(jax.vmap(losses))(jnp.asarray([-1, 0, 2, 3]))
        finite = jnp.isfinite(outputs).reshape(4, -1)
        np.testing.assert_array_equal(finite.all(1), [False, True, True, False])
        assert not bool(finite[0].any()) and not bool(finite[3].any())

    def test_a_network_without_a_conditioning_takes_any(self):
        model = sgm.ScoreModel(lambda level, u, cond, key=None: u * cond.params[0], shape=(2,))
        cond = sgm.Condition(params=jnp.ones((2, 5)))
        x = sgm.sample(sgm.VP(), model, jr.key(0), 2, cond=cond, method=sgm.DDIM(2))
        assert x.shape == (2, 2)


class TestStandardisation:
    conditioning = Conditioning(params=2)

    @pytest.mark.slow_except("MLP")
    @each_network
    def test_parameters_are_standardised_by_the_statistics(self, name):
        network = built(name, self.conditioning)
        network = with_statistics(network, np.zeros(2, np.float32), np.ones(2, np.float32))
        params = jnp.asarray([300.0, 0.02])
        scaled = with_statistics(network, np.asarray([300.0, 0.0], np.float32), np.asarray([10.0, 0.01], np.float32))
        expected = call(network, LEVEL, U, sgm.Condition(params=jnp.asarray([0.0, 2.0])))
        np.testing.assert_allclose(call(scaled, LEVEL, U, sgm.Condition(params=params)), expected, rtol=1e-4, atol=1e-5)

    def test_statistics_are_not_trained(self):
        network = with_statistics(NETWORKS["MLP"](conditioning=self.conditioning), np.ones(2), np.full(2, 3.0))
        weights, rest = eqx.partition(network, eqx.is_inexact_array)
        assert not jax.tree.leaves(weights.embedding.standardisation)
        np.testing.assert_array_equal(rest.embedding.standardisation.std.value, 3)
        cond = sgm.Condition(params=jnp.asarray([2.0, 5.0]))
        gradient = eqx.filter_grad(lambda network: jnp.sum(call(network, LEVEL, U, cond) ** 2))(randomised(network))
        assert not jax.tree.leaves(gradient.embedding.standardisation)
        assert float(jnp.abs(gradient.embedding.params.kernel).max()) > 0

    def test_integers_are_standardised_as_numbers(self):
        network = with_statistics(built("MLP", self.conditioning), np.asarray([1.0, 2.0]), np.asarray([0.3, 0.6]))
        standardised = [network.embedding.standardisation(jnp.asarray([1, 3]).astype(kind)) for kind in ("f4", "i4")]
        np.testing.assert_allclose(standardised, [[0, 1 / 0.6]] * 2, rtol=1e-6)

    @pytest.mark.parametrize(
        ("mean", "std", "message"),
        [
            ([0.0], [1.0], r"mean and std have shapes \(\(1,\), \(1,\)\), but the network has 2 parameters"),
            ([0.0, 0.0], [1.0, 0.0], r"std = \[1. 0.\]; pass finite ones, and std > 0"),
            ([0.0, np.nan], [1.0, 1.0], r"mean = \[ 0. nan\]"),
        ],
    )
    def test_wrong_statistics_raise(self, mean, std, message):
        mean, std = np.asarray(mean), np.asarray(std)
        with pytest.raises(ValueError, match=message):
            with_statistics(NETWORKS["MLP"](conditioning=self.conditioning), mean, std)
        with pytest.raises(ValueError, match="the network has no parameters; build it with"):
            with_statistics(NETWORKS["MLP"](), mean, std)

    def test_a_dropped_parameter_that_is_missing_does_no_harm(self):
        network = built("MLP", dataclasses.replace(self.conditioning, null=True))
        cond = sgm.Condition(params=jnp.full(2, jnp.nan), dropped=jnp.asarray(True))
        gradient = eqx.filter_grad(lambda network: jnp.sum(call(network, LEVEL, U, cond)))(network)
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))

    def test_gradients_by_the_parameters_flow(self):
        network = built("MLP", self.conditioning)
        gradient = jax.grad(lambda params: jnp.sum(call(network, LEVEL, U, sgm.Condition(params=params))))(jnp.ones(2))
        assert bool(jnp.all(gradient != 0))
