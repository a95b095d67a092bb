"""ADM's network computes what its published code does with the same weights, as azula ships it."""

import importlib.util
import sys
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from sgm.interop.adm import UNetModel
from sgm.interop.timestep.tensors import from_tensors, to_tensors

torch = pytest.importorskip("torch", reason="needs torch, on the CPU: pip install torch")

BASE = {
    "image_size": 8,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": (2,),
    "channel_mult": (1, 2),
}
# As the published checkpoints.
IMAGENET = {
    "channel_mult": (1, 2, 3),
    "num_res_blocks": 2,
    "attention_resolutions": (2, 4),
    "num_classes": 5,
    "num_head_channels": 16,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
CASES = {
    "base": {},
    "imagenet": IMAGENET,
    "imagenet_64": IMAGENET | {"use_new_attention_order": True},
    "heads": {"num_heads": 4},
    "heads_upsample": {"num_heads": 4, "num_heads_upsample": 2},
    "new_order": {"num_heads": 2, "use_new_attention_order": True},
    "scale_shift": {"use_scale_shift_norm": True},
    "residual_resampling": {"resblock_updown": True},
    "no_convolutions": {"conv_resample": False},
    "labels": {"num_classes": 5},
    "first_level_of_half": {"model_channels": 64, "channel_mult": (0.5, 1, 1), "out_channels": 3},
    "attention_everywhere": {"attention_resolutions": (1, 2)},
    "no_attention": {"attention_resolutions": ()},
    "one_level": {"channel_mult": (1,), "num_res_blocks": 2},
    # Options that do not touch one another.
    "many": {
        "num_classes": 5,
        "num_heads": 2,
        "use_new_attention_order": True,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
    },
}


@pytest.fixture(scope="module")
def theirs():
    """The module of the network in azula, without what azula needs to download weights."""
    spec = importlib.util.find_spec("azula")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs azula: pip install --no-deps azula")
    folder = Path(spec.submodule_search_locations[0]) / "plugins/adm/_src"
    inner = importlib.util.spec_from_file_location(
        "azula_adm", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["azula_adm"] = importlib.util.module_from_spec(inner)
    inner.loader.exec_module(sys.modules["azula_adm"])
    return importlib.import_module("azula_adm.unet").UNetModel


def network_of(theirs, **config):
    """A network with no parameter left at its first value, zeros and ones included."""
    network = theirs(**config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.add_(0.3 * noise)
    return network, {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def ours(tensors, config):
    return from_tensors(eqx.filter_eval_shape(lambda: UNetModel(**config, key=jr.key(0))), tensors, "test")


def image(height=8, width=8):
    return np.random.default_rng(1).normal(size=(height, width, 3)).astype(np.float32)


def output_of_theirs(network, x, timestep, label=None):
    label = None if label is None else torch.tensor([label])
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 0)))[None]
    return network(x, torch.tensor([timestep]), label)[0].permute(1, 2, 0).numpy()


def gap(found, wanted):
    return np.linalg.norm(np.asarray(found) - wanted) / np.linalg.norm(wanted)


@pytest.mark.slow_except("base", "many")
@pytest.mark.parametrize("case", CASES)
def test_the_output_is_that_of_torch(case, theirs):
    config = BASE | CASES[case]
    network, tensors = network_of(theirs, **config)
    mine, x, label = ours(tensors, config), image(), 3 if "num_classes" in config else None
    assert (
        mine.shape == x.shape and mine.outputs == config["out_channels"] and mine.classes == config.get("num_classes")
    )
    compiled = eqx.filter_jit(mine)
    for timestep in (0.0, 17.5, 999.0):
        found = compiled(jnp.asarray(x), jnp.asarray(timestep), None if label is None else jnp.asarray(label))
        assert gap(found, output_of_theirs(network, x, timestep, label)) < 1e-5
    back = to_tensors(mine)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensor) for name, tensor in tensors.items())


@pytest.mark.slow
def test_images_of_other_sizes(theirs):
    network, tensors = network_of(theirs, **BASE)
    mine, x = eqx.filter_jit(ours(tensors, BASE)), image(12, 16)
    assert gap(mine(jnp.asarray(x), jnp.asarray(17.0)), output_of_theirs(network, x, 17.0)) < 1e-5
    with pytest.raises(ValueError, match=r"the width of .* is 9, but the network is for multiples of 2"):
        mine(jnp.asarray(image(8, 9)), jnp.asarray(17.0))


def test_dropout_acts_with_a_key_alone():
    network = eqx.filter_jit(UNetModel(**BASE, dropout=0.5, key=jr.key(0)))
    x, timestep = jnp.asarray(image()), jnp.asarray(17.0)
    one, two = (network(x, timestep, key=jr.key(seed)) for seed in (0, 1))
    assert gap(one, two) > 1e-2 and gap(network(x, timestep, key=jr.key(0)), one) == 0


@pytest.mark.slow
def test_it_computes_in_the_precision_of_its_input():
    network = eqx.filter_jit(UNetModel(**BASE | IMAGENET, key=jr.key(0)))
    rest = jnp.asarray(17.0), jnp.asarray(3)
    wide, narrow = (network(jnp.asarray(image(), dtype), *rest) for dtype in (jnp.float32, jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16 and gap(narrow.astype(jnp.float32), np.asarray(wide)) < 0.1


def test_labels_that_do_not_exist_give_nan():
    network = eqx.filter_jit(UNetModel(**BASE, num_classes=5, key=jr.key(0)))
    x, timestep = jnp.asarray(image()), jnp.asarray(17.0)
    assert jnp.all(jnp.isfinite(network(x, timestep, jnp.asarray(4))))
    for label in (-1, 5):
        assert jnp.all(jnp.isnan(network(x, timestep, jnp.asarray(label))))
    with pytest.raises(ValueError, match="label = None, but the network reads one; pass a whole number from 0 to 4"):
        network(x, timestep)
    with pytest.raises(ValueError, match="label is given, but the network reads none; leave it out"):
        UNetModel(**BASE, key=jr.key(0))(x, timestep, jnp.asarray(0))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model_channels": 24}, "groups = 32 does not divide 24 channels"),
        ({"num_heads": 5}, "5 heads do not divide 64 channels"),
        ({"num_head_channels": 24}, "num_head_channels = 24 does not divide 64 channels"),
        ({"image_size": 9}, "the height of .* is 9, but the network is for multiples of 2"),
        ({"num_classes": 0}, "num_classes"),
        ({"channel_mult": (0.01, 1)}, r"channel_mult\[0\]"),
        ({"num_res_blocks": 0}, "num_res_blocks"),
        ({"dropout": 1.0}, "dropout = 1.0"),
    ],
)
def test_arguments_that_do_not_fit_are_told(change, words):
    with pytest.raises(ValueError, match=words):
        UNetModel(**BASE | change, key=jr.key(0))
