"""Where the arrays of a state are, judged by their shapes alone."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

import sgm
from sgm.parallel import Replicated, Sharded, describe
from sgm.parallel.devices import _check_processes, check_mesh
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

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (PartitionSpec("model"), r"P.*\(.model.,\) for .*'kernel'.* of shape \(9, 8\), but 4 devices do"),
            (PartitionSpec(None, ("model", "data", "x")), "name axes of the mesh, which are .data. and .model."),
            (PartitionSpec("data", "data"), "name axes of the mesh"),
            (PartitionSpec(None, None, "data"), "give at most one entry for each axis of the array"),
            ("model", "what is given for .*'kernel'.* = 'model'; pass an instance such as jax.sharding.PartitionSpec"),
            (None, "what is given for .*'kernel'.* = None"),
        ],
        ids=str,
    )
    @pytest.mark.usefixtures("types_unchecked")
    def test_a_rule_that_does_not_fit_an_array_names_it(self, spec, message):
        class Own(sgm.parallel.AbstractPlacement):
            def spec(self, path, shape, mesh):
                return spec

        with pytest.raises((TypeError, ValueError), match=f"Own.spec: .*{message}"):
            Own().shardings({"kernel": jax.ShapeDtypeStruct((9, 8), jnp.float32)}, mesh(2, 4))


@pytest.mark.usefixtures("types_unchecked")
class TestMesh:
    model = sgm.ScoreModel(sgm.nn.MLP((2,), 8, 1, key=jr.key(0)), data=sgm.data.Moons())

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (8, "mesh = 8; pass an instance such as sgm.parallel.mesh()"),
            (jax.make_mesh((1,), ("data",)), r"mesh has the axes \('data',\); name them \"data\" and \"model\""),
            (jax.make_mesh((1, 1), ("b", "m")), r"mesh has the axes \('b', 'm'\); name them"),
        ],
        ids=str,
    )
    def test_what_no_training_can_use_is_named(self, given, message):
        with pytest.raises((TypeError, ValueError), match=f"train: {message}"):
            sgm.train(sgm.VP(), self.model, sgm.data.Moons(), jr.key(1), steps=1, mesh=given)

    def test_a_solve_names_what_is_no_mesh(self):
        with pytest.raises(TypeError, match=r"sample: mesh = 8; pass an instance such as sgm.parallel.mesh"):
            sgm.sample(sgm.VP(), self.model, jr.key(0), 2, mesh=8)

    def test_a_mesh_of_jax_is_taken(self):
        assert check_mesh("train", jax.make_mesh((1, 1), ("data", "model"))).axis_types == (AxisType.Auto,) * 2

    @pytest.mark.parametrize(
        ("owners", "message"),
        [
            ([0, 1, 0, 1], r"mesh has the devices of process 0 at the positions \[0, 2\], with others in between"),
            ([0, 0, 2, 2], "mesh has no device of process 1; pass sgm.parallel.mesh"),
            ([2, 1, 1, 0, 0], None),
        ],
        ids=str,
    )
    def test_devices_of_a_process_are_next_to_one_another(self, owners, message):
        if message is None:
            _check_processes("train", owners, 3)
        else:
            with pytest.raises(ValueError, match=f"train: {message}"):
                _check_processes("train", owners, max(owners) + 1)


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
    assert lines[1] == "kernel (128, 64) whole: 1 array, 32.77 kB, 32.77 kB a device"


def test_arrays_of_numpy_are_described_and_shapes_refused():
    lines = describe({"kernel": np.zeros((4, 2), np.float32), "bias": jnp.zeros(2)}).splitlines()
    assert lines[0] == "in all: 2 arrays, 40 B, 8 B a device"
    assert lines[1] == "kernel (4, 2) of the host: 1 array, 32 B, 0 B a device"
    with pytest.raises(TypeError, match=r"describe: \['kernel'\] is a shape, not an array; pass arrays on devices"):
        describe({"kernel": jax.ShapeDtypeStruct((4, 2), jnp.float32)})


@pytest.mark.usefixtures("types_unchecked")
def test_a_number_of_entries_is_whole():
    with pytest.raises(TypeError, match=r"Sharded: smallest = 1.5; pass a whole number, smallest >= 1"):
        Sharded(1.5)
