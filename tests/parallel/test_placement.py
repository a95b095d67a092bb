"""Where the arrays of a state are, judged by their shapes alone."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

import sgm
from sgm.parallel import Replicated, Sharded, describe
from sgm.training.step import Recipe


def mesh(data, model):
    return AbstractMesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


class TestSharded:
    @pytest.mark.parametrize(
        ("shape", "devices", "spec"),
        [
            ((1152, 4608), (2, 4), PartitionSpec(None, ("model", "data"))),
            ((4608, 1152), (2, 4), PartitionSpec(("model", "data"))),
            ((3, 3, 20, 4), (2, 4), PartitionSpec()),
            ((4097, 1004), (3, 4), PartitionSpec(None, ("model",))),
            ((4097, 1003), (2, 4), PartitionSpec()),
            ((1152, 4608), (8, 1), PartitionSpec()),
        ],
        ids=["longest axis", "first axis", "small", "over model alone", "not divided", "no model axis"],
    )
    def test_an_array_is_cut_along_its_longest_axis_that_divides(self, shape, devices, spec):
        assert Sharded().spec(".kernel", shape, mesh(*devices)) == spec

    def test_a_rule_of_ones_own(self):
        class ByName(sgm.parallel.AbstractPlacement):
            def spec(self, path, shape, mesh):
                return PartitionSpec("model") if "kernel" in path else PartitionSpec()

        state = {"kernel": jax.ShapeDtypeStruct((8, 8), jnp.float32), "bias": jax.ShapeDtypeStruct((8,), jnp.float32)}
        found = {name: place.spec for name, place in ByName().shardings(state, mesh(2, 2)).items()}
        assert found == {"kernel": PartitionSpec("model"), "bias": PartitionSpec()}


@pytest.mark.parametrize("devices", [(1, 8), (2, 4), (4, 2)], ids=str)
def test_the_state_of_dit_xl_takes_an_eighth_of_its_size_on_each_of_eight_devices(devices):
    """Weights, averages and two moments of 675M parameters, 10.8 GB; nothing of it is made here."""
    recipe = Recipe(sgm.VP(), sgm.Loss(), optax.adam(1e-4), jr.key(0))

    def start():
        conditioning = sgm.nn.Conditioning(classes=1000, null=True)
        network = sgm.nn.DiT((32, 32, 4), 1152, 28, 16, 2, conditioning=conditioning, key=jr.key(0))
        return recipe.start(sgm.ScoreModel(network, shape=(32, 32, 4)))

    state = eqx.filter_eval_shape(start)
    places = Sharded().shardings(state, mesh(*devices))
    arrays = jax.tree.leaves(eqx.filter(state, lambda leaf: hasattr(leaf, "dtype")))
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in arrays)
    each = sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(arrays, jax.tree.leaves(places), strict=True)
    )
    assert 10e9 < whole < 12e9
    assert 1 / 8 < each / whole < 1.01 / 8


def test_replicated_cuts_nothing():
    assert Replicated().spec(".kernel", (4096, 4096), mesh(2, 4)) == PartitionSpec()


def test_a_state_is_described():
    state = {"kernel": jnp.zeros((128, 64)), "bias": jnp.zeros(64), "name": "not an array"}
    lines = describe(state).splitlines()
    assert lines[0] == "in all: 2 arrays, 33.02 kB, 33.02 kB a device"
    assert lines[1] == "kernel (128, 64) whole: 1 arrays, 32.77 kB, 32.77 kB a device"
