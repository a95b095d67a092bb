"""Networks of EDM's checkpoints compute what a transcription in torch does with the same weights."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from sgm.interop import edm
from sgm.interop.timestep.tensors import from_tensors, to_tensors

torch = pytest.importorskip("torch", reason="needs torch, on the CPU: pip install torch")
theirs = pytest.importorskip("interop.edm_torch", reason="needs torch")

SONG = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_blocks": 1,
    "attn_resolutions": (4,),
}
THREE = {"channel_mult": (1, 2, 2)}
NCSN = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": (1, 3, 3, 1),
    "channel_mult": (2, 2, 2),
}
DHARIWAL = SONG | {"model_channels": 64, "attn_resolutions": (8,)}
CASES = {
    "ddpm++": ("SongUNet", SONG),
    "ncsn++": ("SongUNet", SONG | NCSN),
    "residual": ("SongUNet", SONG | THREE | {"encoder_type": "residual"}),
    "skip": ("SongUNet", SONG | THREE | {"encoder_type": "skip"}),
    "skip_output": ("SongUNet", SONG | THREE | {"decoder_type": "skip"}),
    "skip_filter": (
        "SongUNet",
        SONG | THREE | {"encoder_type": "skip", "decoder_type": "skip", "resample_filter": (1, 3, 3, 1)},
    ),
    "fourier": ("SongUNet", SONG | {"embedding_type": "fourier"}),
    "filter": ("SongUNet", SONG | {"resample_filter": (1, 3, 3, 1)}),
    "labels": ("SongUNet", SONG | {"label_dim": 5}),
    "labels_dropped": ("SongUNet", SONG | {"label_dim": 5, "label_dropout": 0.1}),
    "augmented": ("SongUNet", SONG | {"augment_dim": 9}),
    "widths": ("SongUNet", SONG | {"channel_mult_emb": 2, "channel_mult_noise": 3, "out_channels": 6}),
    "levels": (
        "SongUNet",
        SONG | {"img_resolution": 16, "channel_mult": (2, 1, 3), "num_blocks": 2, "attn_resolutions": (16, 4)},
    ),
    "one_level": ("SongUNet", SONG | {"channel_mult": (2,), "attn_resolutions": ()}),
    "adm": ("DhariwalUNet", DHARIWAL),
    "adm_labels": ("DhariwalUNet", DHARIWAL | {"label_dim": 5, "channel_mult": (2, 1), "attn_resolutions": (8, 4)}),
    "adm_labels_dropped": ("DhariwalUNet", DHARIWAL | {"label_dim": 5, "label_dropout": 0.1}),
    "adm_augmented": ("DhariwalUNet", SONG | {"augment_dim": 9, "channel_mult_emb": 2, "num_blocks": 2}),
}


def randomised(network, seed=0):
    """The network with no parameter left at its first value, zeros and ones included."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.eval().requires_grad_(False).parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.add_(0.3 * noise)
    return network


def tensors_of(network):
    """Tensors by their names, without the buffers that the config makes."""
    named = network.state_dict().items()
    return {name: tensor.numpy() for name, tensor in named if not name.endswith("resample_filter")}


def ours(name, tensors, config):
    skeleton = eqx.filter_eval_shape(lambda: getattr(edm, name)(**config, key=jr.key(0)))
    return from_tensors(skeleton, tensors, "test")


def image(height=8, width=8, channels=3):
    return np.random.default_rng(1).normal(size=(height, width, channels)).astype(np.float32)


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 0)))[None]


def one_hot(label, classes):
    vector = torch.zeros(1, classes)
    if label < classes:
        vector[0, label] = 1
    return vector


def gap(found, wanted):
    return np.linalg.norm(np.asarray(found) - wanted) / np.linalg.norm(wanted)


@pytest.mark.slow_except("ncsn++", "skip_filter", "augmented", "adm_augmented")
@pytest.mark.parametrize("case", CASES)
def test_the_output_is_that_of_torch(case):
    name, config = CASES[case]
    network = randomised(getattr(theirs, name)(**config))
    x, classes = image(config["img_resolution"], config["img_resolution"]), config.get("label_dim", 0)
    tensors = tensors_of(network)
    mine = ours(name, tensors, config)
    assert mine.shape == x.shape and mine.outputs == config["out_channels"] and mine.classes == (classes or None)
    labels = [3] if classes else [None]
    assert mine.has_null == ("label_dropout" in config)
    labels += [None, classes] if mine.has_null else []
    compiled = eqx.filter_jit(mine)
    for timestep, label in itertools.product((-1.6, 0.4), labels):
        vector = one_hot(classes if label is None else label, classes) if classes else None
        wanted = network(channels_first(x), torch.tensor([timestep]), vector)[0].permute(1, 2, 0).numpy()
        label = None if label is None else jnp.asarray(label)
        assert gap(compiled(jnp.asarray(x), jnp.asarray(timestep), label), wanted) < 1e-5
    back = to_tensors(mine)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensor) for name, tensor in tensors.items())


def test_timesteps_of_a_chain_are_read_as_in_torch():
    """Angles are a thousand times as large there as EDM's own."""
    network = randomised(theirs.SongUNet(**SONG))
    x, mine = image(), ours("SongUNet", tensors_of(network), SONG)
    for timestep in (1.0, 998.5):
        wanted = network(channels_first(x), torch.tensor([timestep]))[0].permute(1, 2, 0).numpy()
        assert gap(eqx.filter_jit(mine)(jnp.asarray(x), jnp.asarray(timestep)), wanted) < 1e-5


@pytest.mark.parametrize("case", ["augmented", "adm_augmented"])
def test_an_image_that_is_not_augmented_does_not_read_map_augment(case):
    name, config = CASES[case]
    network, x = randomised(getattr(theirs, name)(**config)), channels_first(image())
    timestep, zeros = torch.tensor([0.3]), torch.zeros(1, 9)
    assert torch.equal(network(x, timestep), network(x, timestep, None, zeros))
    assert not torch.allclose(network(x, timestep), network(x, timestep, None, zeros + 1))


@pytest.mark.slow_except("ddpm++")
@pytest.mark.parametrize("case", ["ddpm++", "ncsn++", "adm"])
def test_images_of_other_sizes(case):
    name, config = CASES[case]
    network, x = randomised(getattr(theirs, name)(**config)), image(12, 16)
    wanted = network(channels_first(x), torch.tensor([0.3]))[0].permute(1, 2, 0).numpy()
    mine = ours(name, tensors_of(network), config)
    assert gap(eqx.filter_jit(mine)(jnp.asarray(x), jnp.asarray(0.3)), wanted) < 1e-5


@pytest.mark.slow
def test_dropout_acts_with_a_key_alone():
    network = eqx.filter_jit(edm.SongUNet(**SONG | {"dropout": 0.5}, key=jr.key(0)))
    x, timestep = jnp.asarray(image()), jnp.asarray(0.3)
    one, two = (network(x, timestep, key=jr.key(seed)) for seed in (0, 1))
    assert gap(one, two) > 1e-2 and gap(network(x, timestep, key=jr.key(0)), one) == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ncsn++", "adm_labels"])
def test_it_computes_in_the_precision_of_its_input(case):
    name, config = CASES[case]
    network = eqx.filter_jit(getattr(edm, name)(**config, key=jr.key(0)))
    label = jnp.asarray(3) if "label_dim" in config else None
    wide = network(jnp.asarray(image()), jnp.asarray(0.3), label)
    narrow = network(jnp.asarray(image(), jnp.bfloat16), jnp.asarray(0.3), label)
    assert narrow.dtype == jnp.bfloat16 and gap(narrow.astype(jnp.float32), np.asarray(wide)) < 0.1


def test_frequencies_are_never_trained():
    network = edm.SongUNet(**SONG | NCSN, key=jr.key(0))
    trained = eqx.filter(network, eqx.is_inexact_array)
    assert trained.map_noise.freqs.bits is None and trained.map_layer0.kernel is not None


def test_labels_that_do_not_exist_give_nan():
    network = eqx.filter_jit(edm.DhariwalUNet(**SONG | {"label_dim": 5}, key=jr.key(0)))
    x, timestep = jnp.asarray(image()), jnp.asarray(0.3)
    assert jnp.all(jnp.isfinite(network(x, timestep, jnp.asarray(4))))
    for label in (-1, 5):
        assert jnp.all(jnp.isnan(network(x, timestep, jnp.asarray(label))))
    with pytest.raises(ValueError, match="label = None, but the network reads one; pass a whole number from 0 to 4"):
        network(x, timestep)
    with pytest.raises(ValueError, match="label is given, but the network reads none; leave it out"):
        edm.SongUNet(**SONG, key=jr.key(0))(x, timestep, jnp.asarray(0))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"embedding_type": "learned"}, "embedding_type = 'learned' is not known; pass one of 'positional', 'fourier'"),
        ({"encoder_type": "dense"}, "encoder_type = 'dense' is not known"),
        ({"decoder_type": "residual"}, "decoder_type = 'residual' is not known"),
        ({"resample_filter": (1, 2, 1)}, r"resample_filter = \(1, 2, 1\) is not known; pass one of \(1, 1\), "),
        ({"img_resolution": 9}, "the height of .* is 9, but the network is for multiples of 2"),
        ({"label_dim": -1}, "label_dim = -1; pass 0 for none"),
        ({"model_channels": 15}, "model_channels = 15; pass an even number"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"num_blocks": 0}, "num_blocks"),
        ({"channel_mult": ()}, "channel_mult"),
    ],
)
def test_arguments_that_do_not_fit_are_told(change, words):
    with pytest.raises(ValueError, match=words):
        edm.SongUNet(**SONG | change, key=jr.key(0))


@pytest.mark.slow
def test_gradients_are_finite():
    network = edm.SongUNet(**SONG | NCSN | {"channel_mult": (1, 1)}, key=jr.key(0))

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(network):
        return jnp.sum(network(jnp.asarray(image()), jnp.asarray(0.3)) ** 2)

    leaves = jax.tree.leaves(gradient(network))
    assert leaves and all(jnp.all(jnp.isfinite(leaf)) for leaf in leaves)
