"""`UNet2DModel` computes what diffusers' own does with the same weights."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from sgm.interop.diffusers.old_names import ModernNames
from sgm.interop.diffusers.unet import UNet2DModel
from sgm.interop.timestep.embeddings import LabelEmbedding, TimestepTable
from sgm.interop.timestep.tensors import from_tensors, to_tensors

WITHOUT = "needs torch and diffusers, on the CPU: pip install torch diffusers"
torch = pytest.importorskip("torch", reason=WITHOUT)
diffusers = pytest.importorskip("diffusers", reason=WITHOUT)

BASE = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
ATTENTION = {"down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2}
RESNET = {"down_block_types": ("ResnetDownsampleBlock2D",) * 2, "up_block_types": ("ResnetUpsampleBlock2D",) * 2}
SKIP = {"down_block_types": ("SkipDownBlock2D",) * 2, "up_block_types": ("SkipUpBlock2D",) * 2}
SKIP_ATTENTION = {
    "block_out_channels": (32, 32),
    "down_block_types": ("AttnSkipDownBlock2D",) * 2,
    "up_block_types": ("AttnSkipUpBlock2D",) * 2,
}
# As the checkpoints that were made from score_sde's.
SCORE_SDE = {
    "sample_size": 16,
    "block_out_channels": (32, 32, 16),
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
    "up_block_types": ("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "time_embedding_type": "fourier",
    "mid_block_scale_factor": 2**0.5,
    "attention_head_dim": None,
    "norm_num_groups": None,
    "norm_eps": 1e-6,
}
CASES = {
    "base": {},
    "attention": ATTENTION,
    "resnet": RESNET,
    "skip": SKIP,
    "skip_attention": SKIP_ATTENTION,
    "score_sde": SCORE_SDE,
    "skip_down_alone": SKIP | {"up_block_types": ("UpBlock2D",) * 2},
    "skip_up_alone": SKIP | {"down_block_types": ("DownBlock2D",) * 2},
    "skip_last": {"up_block_types": ("UpBlock2D", "SkipUpBlock2D")},
    "one_level": {
        "block_out_channels": (8,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("AttnUpBlock2D",),
        "layers_per_block": 2,
    },
    "three_levels_by_names_of_old": {
        "block_out_channels": (8, 16, 12),
        "down_block_types": ("DownBlock2D", "UNetResAttnDownBlock2D", "UNetResDownBlock2D"),
        "up_block_types": ("UpBlock2D", "UNetResAttnUpBlock2D", "UNetResUpBlock2D"),
        "layers_per_block": 2,
    },
    "oblong_swish": {"sample_size": (8, 12), "in_channels": 2, "out_channels": 5, "act_fn": "swish"},
    "no_middle": {"mid_block_type": None},
    "no_attention_in_the_middle": {"add_attention": False},
    "middle_scale": {"mid_block_scale_factor": 2.0},
    "middle_groups": {"attn_norm_num_groups": 2},
    "scale_shift": {"resnet_time_scale_shift": "scale_shift"},
    "scale_shift_middle_groups": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 2},
    "scale_shift_skip": SKIP | {"resnet_time_scale_shift": "scale_shift"},
    "resnet_resampling": ATTENTION | {"downsample_type": "resnet", "upsample_type": "resnet"},
    "padding_0": {"downsample_padding": 0},
    "padding_0_attention": ATTENTION | {"downsample_padding": 0, "downsample_type": None, "upsample_type": None},
    "learned": {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    "time_embedding_dim_gelu": {"time_embedding_dim": 20, "act_fn": "gelu"},
    "no_flip_mish": {"flip_sin_to_cos": False, "freq_shift": 1, "act_fn": "mish"},
    "odd_sinusoids": {"block_out_channels": (9, 12), "norm_num_groups": 3},
    "classes": {"num_class_embeds": 5},
    "class_timestep": {"class_embed_type": "timestep", "num_class_embeds": 5},
    "fourier_class_timestep": {
        "class_embed_type": "timestep",
        "num_class_embeds": 5,
        "time_embedding_type": "fourier",
    },
    "class_identity": {"class_embed_type": "identity"},
    "one_head_relu": {"attention_head_dim": None, "act_fn": "ReLU"},
    "uneven_heads": {"attention_head_dim": 5},
    "centred_eps": {"center_input_sample": True, "norm_eps": 0.1},
    # Options that do not touch one another.
    "many": {
        "sample_size": (8, 12),
        "in_channels": 2,
        "out_channels": 5,
        "act_fn": "mish",
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "mid_block_scale_factor": 2.0,
        "downsample_padding": 0,
        "attention_head_dim": None,
        "center_input_sample": True,
        "norm_eps": 0.1,
    },
    "many_of_resnet": ATTENTION
    | {
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "class_embed_type": "timestep",
        "num_class_embeds": 5,
        "act_fn": "ReLU",
    },
}
CIFAR10 = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "downsample_padding": 0,
    "attention_head_dim": None,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}


def theirs(**config):
    """Diffusers' network with no parameter left at its first value, zeros and ones included."""
    network = diffusers.UNet2DModel(**config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        elif name != "time_proj.weight":  # whose scale, 16, is part of what it is
            parameter.add_(0.3 * noise)
    return network


def tensors_of(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def ours(tensors, **config):
    return from_tensors(eqx.filter_eval_shape(UNet2DModel, **config, key=jr.key(0)), tensors, "test")


def image(config, *batch):
    height, width = np.broadcast_to(config["sample_size"], 2)
    shape = (*batch, height, width, config.get("in_channels", 3))
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def label_of(config):
    if config.get("class_embed_type") == "identity":
        return np.random.default_rng(2).normal(size=4 * config["block_out_channels"][0]).astype(np.float32)
    return np.asarray(3, np.int32) if "num_class_embeds" in config else None


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, -3)))


def output_of_theirs(network, x, timestep, label=None):
    timestep = torch.tensor([int(timestep) if network.config.time_embedding_type == "learned" else timestep])
    label = None if label is None else torch.from_numpy(label)[None]
    if network.config.class_embed_type == "timestep":
        label = label.float()  # of which a logarithm can be taken
    return np.moveaxis(network(channels_first(x)[None], timestep, label).sample[0].numpy(), 0, -1)


def relative_error(value, truth):
    return np.abs(np.asarray(value) - truth).max() / np.abs(truth).max()


@eqx.filter_jit
def call(network, x, timestep, label=None, key=None):
    return network(jnp.asarray(x), jnp.asarray(timestep, jnp.float32), label, key)


@pytest.mark.slow_except("base", "score_sde", "three_levels*", "learned", "many", "many_of_resnet")
@pytest.mark.parametrize("name", CASES)
def test_output_is_diffusers(name):
    config = BASE | CASES[name]
    network, x, label = theirs(**config), image(config), label_of(config)
    tensors = tensors_of(network)
    loaded = ours(tensors, **config)
    label = None if label is None else jnp.asarray(label)
    output = call(loaded, x, 37.0, label)
    assert relative_error(output, output_of_theirs(network, x, 37.0, label_of(config))) < 1e-5
    back = to_tensors(loaded)
    assert back.keys() == tensors.keys()
    for tensor in tensors:
        np.testing.assert_array_equal(back[tensor], tensors[tensor], strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, timesteps, most",
    [
        ("positional", (0.0, 0.3, 500.0, 999.0), 1e-5),
        # Angles are hundreds of times log(timestep), and so is its rounding.
        ("fourier", (0.01, 1.0, 1348.0), 1e-4),
    ],
    ids=["positional", "fourier"],
)
def test_timesteps_may_lie_anywhere(kind, timesteps, most):
    config = BASE | {"time_embedding_type": kind}
    network, x = theirs(**config), image(config)
    loaded = ours(tensors_of(network), **config)
    for timestep in timesteps:
        assert relative_error(call(loaded, x, timestep), output_of_theirs(network, x, timestep)) < most


def test_a_table_of_timesteps_is_interpolated():
    table = TimestepTable(4, 3, key=jr.key(0))
    rows = np.asarray(table.table)
    read = {t: table(jnp.asarray(t)) for t in (0.0, 2.0, 2.25, 3.0, -0.5, 3.5)}
    for row in (0, 2, 3):
        np.testing.assert_array_equal(read[float(row)], rows[row])
    np.testing.assert_allclose(read[2.25], 0.75 * rows[2] + 0.25 * rows[3], rtol=1e-6)
    assert np.isnan(read[-0.5]).all() and np.isnan(read[3.5]).all()


def test_a_label_that_is_none_of_them_is_nan():
    labels = LabelEmbedding(4, 3, key=jr.key(0))
    assert np.isnan(labels(jnp.asarray(4))).all() and np.isnan(labels(jnp.asarray(-1))).all()
    np.testing.assert_array_equal(labels(jnp.asarray(3)), labels.table[3])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["padding_0_attention", "scale_shift_skip"])
def test_gradients_are_diffusers(name):
    """Of sum(output^2) over a batch, with regard to the input and to every tensor."""
    config = BASE | CASES[name]
    network, x, timesteps = theirs(**config), image(config, 2), np.asarray([3.0, 700.0], np.float32)
    loaded = ours(tensors_of(network), **config)
    images = channels_first(x).requires_grad_()
    network.requires_grad_(True)
    (network(images, torch.from_numpy(timesteps)).sample ** 2).sum().backward()

    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(parts, timesteps):
        network, x = parts
        return jnp.sum(eqx.filter_vmap(network, in_axes=(0, 0))(x, timesteps) ** 2)

    of_network, of_x = gradients((loaded, jnp.asarray(x)), jnp.asarray(timesteps))
    assert relative_error(of_x, np.moveaxis(images.grad.numpy(), 1, -1)) < 1e-5
    of_tensors = to_tensors(of_network)
    size = max(np.abs(gradient).max() for gradient in of_tensors.values())
    for tensor, parameter in network.named_parameters():
        np.testing.assert_allclose(of_tensors[tensor], parameter.grad.numpy(), rtol=1e-3, atol=1e-5 * size)


@pytest.mark.slow
def test_bfloat16_stays_near_float32():
    network, x = ours(tensors_of(theirs(**BASE)), **BASE), image(BASE)
    output = call(network, jnp.asarray(x, jnp.bfloat16), 37.0)
    assert output.dtype == jnp.bfloat16
    assert 1e-4 < relative_error(output.astype(jnp.float32), np.asarray(call(network, x, 37.0))) < 0.05


def test_dropout_needs_a_key():
    config = BASE | {"dropout": 0.5}
    network, x = theirs(**config), image(config)
    loaded = ours(tensors_of(network), **config)
    assert relative_error(call(loaded, x, 37.0), output_of_theirs(network, x, 37.0)) < 1e-5
    first, again, other = (np.asarray(call(loaded, x, 37.0, key=jr.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert relative_error(first, other) > 1e-2


def test_other_sizes_than_the_sample_size():
    network = theirs(**BASE)
    x = image(BASE | {"sample_size": (4, 12)})
    assert relative_error(call(ours(tensors_of(network), **BASE), x, 37.0), output_of_theirs(network, x, 37.0)) < 1e-5


def test_what_it_says_of_itself():
    def network(**config):
        return eqx.filter_eval_shape(UNet2DModel, **BASE | config, key=jr.key(0))

    assert network(sample_size=[8, 12], out_channels=6).shape == (8, 12, 3)
    assert network(out_channels=6).outputs == 6
    assert network().classes is None and network(class_embed_type="identity").classes is None
    assert network(num_class_embeds=7).classes == 7
    built = network(block_out_channels=[8, 16])
    assert {name: getattr(built, name) for name in BASE} == BASE


@pytest.mark.parametrize("name", ["attention", "skip_attention"])
def test_names_of_old(name):
    config = BASE | CASES[name]
    tensors = tensors_of(theirs(**config))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for tensor, value in tensors.items():
        for new, before in old.items():
            tensor = tensor.replace(f".{new}.", f".{before}.")
        renamed[tensor] = value
    modern = ModernNames(renamed)
    assert len(renamed.keys() - tensors.keys()) >= 16 and list(modern) == list(tensors)
    assert all(modern[tensor] is tensors[tensor] for tensor in tensors)
    assert list(ModernNames(tensors)) == list(tensors)


def test_frequencies_by_their_name_of_old():
    frequencies = np.ones(4, np.float32)
    alone, twice = {"time_proj.W": frequencies}, {"time_proj.weight": frequencies, "time_proj.W": frequencies}
    for tensors in (alone, twice):
        modern = ModernNames(tensors)
        assert list(modern) == ["time_proj.weight"] and len(modern) == 1
        assert modern["time_proj.weight"] is frequencies


def build(**config):
    return eqx.filter_eval_shape(UNet2DModel, **BASE | config, key=jr.key(0))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"sample_size": None}, "sample_size = None; pass the height and width of an image, such as 32"),
        ({"sample_size": 9}, "the height of .* is 9, but the network is for multiples of 2, such as 8 or 10"),
        (
            {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")},
            r"down_block_types\[1\] = 'CrossAttnDownBlock2D', which is not known; pass one of 'DownBlock2D', 'AttnDown",
        ),
        (
            {"up_block_types": ("UpBlock2D", "KUpBlock2D")},
            r"up_block_types\[1\] = 'KUpBlock2D', .* 'AttnSkipUpBlock2D'",
        ),
        (
            {"up_block_types": ("UpBlock2D",)},
            "up_block_types has 1 entries, but block_out_channels has 2; pass as many",
        ),
        ({"mid_block_type": "Mid"}, "mid_block_type = 'Mid', which is not known; pass one of 'UNetMidBlock2D', None"),
        (
            {"act_fn": "tanh"},
            "act_fn = 'tanh', which is not known; pass one of 'silu', 'swish', 'mish', 'gelu', 'relu'",
        ),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift = 'spatial', which is not known"),
        ({"class_embed_type": "projection"}, "class_embed_type = 'projection', which is not known"),
        ({"class_embed_type": "timestep"}, "num_class_embeds = None; pass the number of labels"),
        ({"time_embedding_type": "learned"}, "num_train_timesteps = None; pass the number of timesteps"),
        ({"downsample_padding": 2}, "downsample_padding = 2, which is not known; pass one of 0, 1"),
        ({"norm_num_groups": 5}, "GroupNorm: groups = 5 does not divide 8 channels"),
        ({"norm_num_groups": None}, "norm_num_groups = None, but only skip blocks choose their groups themselves"),
        ({"attention_head_dim": 32}, "attention_head_dim = 32, but there are 16 channels, too few for one head"),
        ({"dropout": 1.0}, "dropout = 1.0; pass 0 <= dropout < 1"),
        (SKIP | {"in_channels": 1}, "in_channels = 1, but skip blocks are for images of 3 channels"),
        (SKIP | {"out_channels": 6}, "out_channels = 6, but skip blocks are for images of 3 channels"),
        (
            SCORE_SDE | {"down_block_types": ("DownBlock2D", "SkipDownBlock2D", "DownBlock2D")},
            "other blocks do not halve the input beside a skip block; pass skip blocks first",
        ),
        (SKIP | {"up_block_types": ("SkipUpBlock2D", "UpBlock2D")}, "pass skip blocks last"),
    ],
)
def test_errors_of_a_configuration(config, message):
    with pytest.raises(ValueError, match=message):
        build(**config)


@pytest.mark.parametrize(
    "config, x, label, message",
    [
        ({}, (8, 8, 3), 1, "label is given, but the network reads none; leave it out"),
        ({"num_class_embeds": 5}, (8, 8, 3), None, "label = None, .* pass a whole number from 0 to 4"),
        ({"class_embed_type": "identity"}, (8, 8, 3), None, "label = None, .* pass its embedding"),
        ({}, (7, 8, 3), None, "the height of .* is 7, but the network is for multiples of 2"),
        ({}, (8, 8, 2), None, r"u has shape \(8, 8, 2\), but the network was built for \(8, 8, 3\)"),
    ],
)
def test_errors_of_a_call(config, x, label, message):
    label = None if label is None else jnp.asarray(label)
    with pytest.raises(ValueError, match=message):
        eqx.filter_eval_shape(build(**config), jnp.zeros(x), jnp.asarray(1.0), label)


@pytest.mark.slow
def test_ddpm_cifar10():
    """The configuration of google/ddpm-cifar10-32, with random weights."""
    network, x = theirs(**CIFAR10), image(CIFAR10)
    tensors = tensors_of(network)
    assert sum(tensor.size for tensor in tensors.values()) == 35_746_307
    assert relative_error(call(ours(tensors, **CIFAR10), x, 721.0), output_of_theirs(network, x, 721.0)) < 1e-5
