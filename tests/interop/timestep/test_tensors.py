import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from sgm.interop.timestep.tensors import from_tensors, to_tensors
from sgm.nn import Frozen
from sgm.nn.layers import Linear
from sgm.nn.stacked import Stacked

RNG = np.random.default_rng(0)
SHAPES = {"conv.weight": (130, 5, 3, 2), "line.weight": (70, 4, 3), "waves.weight": (7,)} | {
    f"layers.{number}.{name}": shape
    for number in range(3)
    for name, shape in {"weight": (200, 66), "bias": (200,), "net.0.weight": (3, 2)}.items()
}
TENSORS = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


class Kernel(eqx.Module):
    kernel: jax.Array


class Waves(eqx.Module):
    weight: Frozen


class Layer(eqx.Module):
    kernel: jax.Array
    bias: jax.Array
    net: tuple[Kernel, None]


class Network(eqx.Module):
    conv: Kernel
    line: Kernel
    waves: Waves
    layers: Stacked
    name: str = eqx.field(static=True)

    def __init__(self):
        self.conv, self.line = Kernel(jnp.zeros((3, 2, 5, 130))), Kernel(jnp.zeros((3, 4, 70)))
        self.waves, self.name = Waves(Frozen(jnp.zeros(7))), "network"
        self.layers = Stacked(Layer(jnp.zeros((3, 66, 200)), jnp.zeros((3, 200)), (Kernel(jnp.zeros((3, 2, 3))), None)))


@pytest.mark.parametrize("of", [Network, lambda: eqx.filter_eval_shape(Network)], ids=["arrays", "shapes"])
def test_tensors_are_found_by_torchs_names(of):
    network = from_tensors(of(), TENSORS, "folder")
    np.testing.assert_array_equal(network.conv.kernel[2, 1, 4, 77], TENSORS["conv.weight"][77, 4, 2, 1])
    np.testing.assert_array_equal(network.line.kernel, np.transpose(TENSORS["line.weight"], (2, 1, 0)))
    np.testing.assert_array_equal(network.waves.weight.value, TENSORS["waves.weight"])
    for number in range(3):
        np.testing.assert_array_equal(network.layers.each.kernel[number], TENSORS[f"layers.{number}.weight"].T)
        np.testing.assert_array_equal(network.layers.each.bias[number], TENSORS[f"layers.{number}.bias"])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(network))
    back = to_tensors(network)
    assert back.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(back[name], tensor)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_precision_is_kept(dtype):
    skeleton = Stacked(eqx.filter_vmap(lambda key: Linear(5, 7, key=key))(jr.split(jr.key(0), 2)))
    shapes = {"weight": (7, 5), "bias": (7,)}
    tensors = {
        f"{number}.{name}": RNG.standard_normal(shape).astype(dtype)
        for number in range(2)
        for name, shape in shapes.items()
    }
    network = from_tensors(skeleton, tensors, "folder")
    assert network.each.kernel.dtype == dtype
    for name, tensor in to_tensors(network).items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_what_is_loaded_is_no_view_of_the_file():
    tensors = {name: tensor.copy() for name, tensor in TENSORS.items()}
    network = from_tensors(Network(), tensors, "folder")
    for tensor in tensors.values():
        tensor[...] = 0
    np.testing.assert_array_equal(network.layers.each.bias[1], TENSORS["layers.1.bias"])
    np.testing.assert_array_equal(network.layers.each.kernel[1], TENSORS["layers.1.weight"].T)


def test_donated_arrays_are_safe():
    network = from_tensors(Network(), TENSORS, "folder")
    doubled = eqx.filter_jit(lambda tree: jax.tree.map(lambda leaf: leaf + leaf, tree), donate="all")(network.layers)
    np.testing.assert_array_equal(doubled.each.bias[1], 2 * TENSORS["layers.1.bias"])
    np.testing.assert_array_equal(
        to_tensors(from_tensors(Network(), TENSORS, ""))["conv.weight"], TENSORS["conv.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"line.weight": None, "layers.1.bias": None}, "folder: tensors missing: layers.1.bias, line.weight; pass a"),
        ({"conv.bias": np.zeros(3)}, "folder: tensors not of this model: conv.bias; pass a folder"),
        (
            {"conv.bias": np.zeros(3), "line.weight": None},
            "missing: line.weight and tensors not of this model: conv.bias",
        ),
        (
            {"layers.2.weight": np.zeros((66, 200), np.float32)},
            r"layers.2.weight has shape \(66, 200\), .* \(200, 66\);",
        ),
        ({"conv.weight": np.zeros((3, 2), np.float32)}, r"conv.weight has shape \(3, 2\), .* it has \(130, 5, 3, 2\);"),
        (
            {"layers.2.bias": np.zeros(200, np.float16)},
            "layers.2.bias has dtype float16, but layers.0.bias has float32;",
        ),
        ({"conv.weight": np.ones((130, 5, 3, 2), np.int32)}, "conv.weight has dtype int32; save it in one of float32,"),
    ],
    ids=["missing", "extra", "both", "shape", "axes", "dtype", "whole numbers"],
)
def test_tensors_of_another_model(change, message):
    tensors = {name: tensor for name, tensor in (TENSORS | change).items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        from_tensors(Network(), tensors, "folder")


def test_progress_is_shown(capfd):
    from_tensors(Network(), TENSORS, "folder/model.safetensors", progress=True)
    assert "folder/model.safetensors: 100%" in capfd.readouterr().err
    from_tensors(Network(), TENSORS, "folder/model.safetensors")
    assert capfd.readouterr().err == ""
