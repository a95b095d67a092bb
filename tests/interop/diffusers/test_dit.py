import gc
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from sgm.interop.diffusers.dit import DiTTransformer2DModel
from sgm.interop.timestep.tensors import from_tensors, to_tensors

torch = pytest.importorskip("torch", reason="the network is held to torch's, which is not installed")
diffusers = pytest.importorskip("diffusers", reason="the network is held to diffusers', which is not installed")

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 3,
    "num_layers": 3,
    "sample_size": 8,
    "num_embeds_ada_norm": 5,
}
OPTIONS = {
    "defaults": {},
    "out_channels": {"out_channels": 6},
    "gelu": {"activation_fn": "gelu"},
    "geglu": {"activation_fn": "geglu"},
    "geglu-approximate": {"activation_fn": "geglu-approximate"},
    "swiglu": {"activation_fn": "swiglu"},
    "linear-silu": {"activation_fn": "linear-silu"},
    "attention_bias": {"attention_bias": False},
    "norm": {"norm_elementwise_affine": True, "norm_eps": 0.1},
    "norm_eps": {"norm_eps": 0.1},
    "upcast_attention": {"upcast_attention": True},
    "patch_size": {"patch_size": 4},
    "one_entry": {"patch_size": 1, "sample_size": 4},
    "one_block": {"num_layers": 1},
    "unused_fields": {"norm_num_groups": 7, "dropout": 0.3},
}
TIMESTEPS = np.asarray([0.0, 3.0, 411.5, 999.0], np.float32)
LABELS = np.asarray([0, 4, 2, 5], np.int32)  # 5 is the null


def torch_model(config, seed=0):
    """diffusers' model in evaluation mode, with every parameter random and outputs of about unit size."""
    torch.manual_seed(seed)
    model = diffusers.DiTTransformer2DModel(**config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return model


def loaded(model, config):
    """Our network with the model's tensors, and these."""
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    skeleton = eqx.filter_eval_shape(DiTTransformer2DModel, **config, key=jr.key(0))
    return from_tensors(skeleton, tensors, "model"), tensors


@eqx.filter_jit
def built(config):
    return DiTTransformer2DModel(**config, key=jr.key(0))


def examples(config, size=None):
    size = size or config["sample_size"]
    return np.random.default_rng(1).standard_normal((4, size, size, config["in_channels"])).astype(np.float32)


def torch_output(model, x, timesteps=TIMESTEPS, labels=LABELS):
    x = torch.as_tensor(x).permute(0, 3, 1, 2)
    output = model(x, torch.as_tensor(timesteps), torch.as_tensor(labels).long()).sample
    return output.permute(0, 2, 3, 1)


@eqx.filter_jit
def our_output(network, x, timesteps=TIMESTEPS, labels=LABELS):
    return jax.vmap(network)(*(jnp.asarray(part) for part in (x, timesteps, labels)))


def relative_error(found, true):
    found, true = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (found, true))
    return float(np.max(np.linalg.norm(found - true, axis=1) / np.linalg.norm(true, axis=1)))


@pytest.fixture(scope="module")
def pair():
    model = torch_model(SMALL)
    return model, loaded(model, SMALL)[0]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_output_is_that_of_diffusers(options):
    config = SMALL | options
    model = torch_model(config)
    network, tensors = loaded(model, config)
    found = our_output(network, examples(config))
    true = torch_output(model, examples(config))
    assert relative_error(found, true) < 1e-5
    assert found.shape[-1] == network.outputs
    back = to_tensors(network)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_output_at_another_size_is_that_of_diffusers(pair):
    model, network = pair
    x = examples(SMALL, size=12)
    assert relative_error(our_output(network, x), torch_output(model, x)) < 1e-5


def test_an_image_that_is_not_square_has_its_shape(pair):
    _, network = pair
    x = jnp.asarray(examples(SMALL))[0, :, :6]
    output = our_output(network, x[None], TIMESTEPS[:1], LABELS[:1])[0]
    assert output.shape == (8, 6, 3)
    assert bool(jnp.all(jnp.isfinite(output)))


def test_gradient_is_that_of_diffusers(pair):
    model, network = pair
    x = examples(SMALL)
    of_torch = torch.as_tensor(x).requires_grad_()
    (torch_output(model, of_torch) ** 2).sum().backward()
    found = jax.grad(lambda x: jnp.sum(our_output(network, x) ** 2))(jnp.asarray(x))
    assert relative_error(found, of_torch.grad) < 1e-5


def test_gradients_reach_every_parameter(pair):
    _, network = pair
    gradients = eqx.filter_grad(lambda network: jnp.sum(our_output(network, examples(SMALL)) ** 2))(network)
    # All but the bias of the keys, to which softmax is blind, and the rows of the labels that are not there.
    for name, gradient in to_tensors(gradients).items():
        if not name.endswith(("to_k.bias", "embedding_table.weight")):
            assert np.all(np.abs(gradient).max() > 1e-4), name
        elif name.endswith("embedding_table.weight"):
            assert set(np.flatnonzero(np.abs(gradient).max(axis=1))) == set(LABELS.tolist())


def test_no_label_is_the_null(pair):
    _, network = pair
    assert (network.classes, network.has_null) == (5, True)
    x, timestep = jnp.asarray(examples(SMALL))[0], jnp.asarray(3.0)
    call = eqx.filter_jit(lambda network, label: network(x, timestep, label))
    without = call(network, None)
    np.testing.assert_allclose(without, call(network, jnp.asarray(5)), rtol=1e-5, atol=1e-6)
    assert relative_error(without[None], call(network, jnp.asarray(4))[None]) > 1e-2
    for unknown in (-1, 6):
        assert bool(jnp.all(jnp.isnan(call(network, jnp.asarray(unknown)))))


def test_bfloat16_is_near_float32(pair):
    _, network = pair
    x = jnp.asarray(examples(SMALL))
    found = our_output(network, x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    assert 1e-4 < relative_error(found.astype(jnp.float32), our_output(network, x)) < 3e-2
    with jax.numpy_dtype_promotion("standard"):  # on which JAX's gradient of attention relies
        gradient = jax.grad(lambda x: jnp.sum(our_output(network, x).astype(jnp.float32)))(x.astype(jnp.bfloat16))
    true = jax.grad(lambda x: jnp.sum(our_output(network, x)))(x)
    assert relative_error(gradient.astype(jnp.float32), true) < 1e-1


def test_tensors_of_bfloat16_are_kept(pair):
    model, _ = pair
    tensors = {name: tensor.numpy().astype(jnp.bfloat16) for name, tensor in model.state_dict().items()}
    skeleton = eqx.filter_eval_shape(DiTTransformer2DModel, **SMALL, key=jr.key(0))
    back = to_tensors(from_tensors(skeleton, tensors, "model"))
    for name, tensor in tensors.items():
        assert back[name].dtype == jnp.bfloat16
        np.testing.assert_array_equal(back[name], tensor)


@pytest.mark.slow
def test_dropout_needs_a_key():
    network = built(SMALL | {"dropout": 0.5})
    x, timestep = jnp.asarray(examples(SMALL))[0], jnp.asarray(3.0)
    call = eqx.filter_jit(lambda network, key: network(x, timestep, key=key))
    np.testing.assert_array_equal(call(network, None), call(network, None))
    first, again, other = (call(network, jr.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert relative_error(first[None], other[None]) > 1e-2
    assert relative_error(first[None], call(network, None)[None]) > 1e-2


def test_what_is_compiled_does_not_grow_with_depth():
    x = jnp.zeros((8, 8, 3))

    def operations(depth):
        network = eqx.filter_eval_shape(DiTTransformer2DModel, **SMALL | {"num_layers": depth}, key=jr.key(0))
        return str(eqx.filter_make_jaxpr(lambda network: network(x, jnp.asarray(3.0)))(network)[0]).count("\n")

    assert operations(2) == operations(9)


def test_arguments_are_the_fields_of_diffusers():
    ours, theirs = (
        {name: parameter.default for name, parameter in inspect.signature(network).parameters.items() if name != "key"}
        for network in (DiTTransformer2DModel, diffusers.DiTTransformer2DModel)
    )
    assert ours == theirs
    network = built(SMALL)
    assert {name: getattr(network, name) for name in ours} == ours | SMALL


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_layers": 0}, ValueError, "num_layers = 0; pass num_layers >= 1"),
        ({"num_embeds_ada_norm": None}, TypeError, "num_embeds_ada_norm = None; pass a whole number"),
        ({"out_channels": 0}, ValueError, "out_channels = 0; pass out_channels >= 1"),
        ({"dropout": 1.0}, ValueError, r"dropout = 1.0; pass 0 <= dropout < 1"),
        ({"attention_head_dim": 5}, ValueError, "attention_head_dim = 10, which 4 must divide"),
        ({"sample_size": 7}, ValueError, r"height of \(7, 7, 3\) is 7, .* multiples of 2, such as 6 or 8"),
        ({"activation_fn": "relu"}, ValueError, "activation_fn = 'relu'; pass one of gelu, gelu-approximate"),
        ({"norm_type": "ada_norm"}, ValueError, """norm_type = 'ada_norm'; pass "ada_norm_zero\""""),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else "",
)
def test_what_it_cannot_be(options, error, message, types_unchecked):
    with pytest.raises(error, match=f"DiTTransformer2DModel: .*{message}"):
        DiTTransformer2DModel(**SMALL | options, key=jr.key(0))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((7, 8, 3), "height of .* is 7"), ((8, 8, 4), "pass u of 3 channels")],
    ids=["size", "channels"],
)
def test_what_it_does_not_take(pair, shape, message):
    _, network = pair
    with pytest.raises(ValueError, match=f"DiTTransformer2DModel: .*{message}"):
        network(jnp.zeros(shape), jnp.asarray(3.0))


@pytest.mark.slow
def test_output_of_xl_2_is_that_of_diffusers():
    config = {"out_channels": 8}  # for the rest, the defaults are those of DiT-XL/2 at 256 x 256
    model = torch_model(config)
    x = examples({"sample_size": 32, "in_channels": 4})[:1]
    true = torch_output(model, x, TIMESTEPS[2:3], LABELS[:1]).numpy()
    network, tensors = loaded(model, config)
    # The 675M of the paper's network, less its stored positions, and an embedding for each other block.
    assert sum(tensor.size for tensor in tensors.values()) == 675_129_632 - 256 * 1152 + 27 * (1152 * 2411)
    del model, tensors
    gc.collect()
    assert relative_error(our_output(network, x, TIMESTEPS[2:3], LABELS[:1]), true) < 1e-5
