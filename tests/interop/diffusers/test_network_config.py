"""What the config.json of a network may say, in which files its weights may lie, and in which precision."""

import math
import shutil

import equinox as eqx
import huggingface_hub
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from interop.diffusers.pipelines import FIELDS, SCHEDULER, random_network, write, write_pipeline
from networks import randomised

import sgm
from sgm.interop import diffusers
from sgm.interop.diffusers.network_config import NETWORKS, WITHOUT_EFFECT, skeleton_of_config
from sgm.interop.tensor_files import map_tensors, write_tensors

STEM = "diffusion_pytorch_model"
SMALL = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "num_embeds_ada_norm": 5}
# The fields of facebook/DiT-XL-2-256, and those that the class was given later.
HUB = {
    "_class_name": "Transformer2DModel",
    "_diffusers_version": "0.12.0.dev0",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "cross_attention_dim": None,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "out_channels": 8,
    "patch_size": 2,
    "upcast_attention": False,
    "use_linear_projection": False,
}
LATER = {
    "double_self_attention": False,
    "attention_type": "default",
    "caption_channels": None,
    "interpolation_scale": None,
    "use_additional_conditions": None,
    "norm_eps": 1e-5,
}
UNET = {"_class_name": "UNet2DModel", **FIELDS}


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture
def pipeline(network, tmp_path):
    return write_pipeline(tmp_path / "pipeline", network)


@pytest.mark.parametrize("config", [HUB, HUB | LATER], ids=["hub", "later"])
def test_a_config_of_the_hub_is_read(config, tmp_path):
    fields = {"in_channels": 4, "out_channels": 8, **SMALL}
    network = randomised(diffusers.DiTTransformer2DModel(**fields, key=jr.key(0)))
    folder = diffusers.save_network(tmp_path / "transformer", network)
    write(folder / "config.json", config | SMALL)
    assert eqx.tree_equal(diffusers.load_network(folder, progress=False), network)


def test_diffusers_reads_that_config_as_the_same_class():
    loading = pytest.importorskip("diffusers.models.model_loading_utils", reason="diffusers is not installed")
    assert loading._CLASS_REMAPPING_DICT["Transformer2DModel"]["ada_norm_zero"] == "DiTTransformer2DModel"


def test_each_class_has_a_table_of_fields_that_change_nothing():
    assert WITHOUT_EFFECT.keys() == {cls.__name__ for cls in NETWORKS}
    for table in WITHOUT_EFFECT.values():
        assert all(values and reason for values, reason in table.values())


DIT = HUB | LATER | SMALL


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DIT | {"cross_attention_dim": 768}, "cross_attention_dim = 768, but a DiT.* is known with None alone: tokens"),
        (DIT | {"attention_type": "gated"}, "attention_type = 'gated', but a DiT.* with 'default' alone"),
        (DIT | {"only_cross_attention": 0}, "only_cross_attention = 0, but a DiT.* with False alone"),
        (DIT | {"norm_type": "ada_norm_single"}, "of the class Transformer2DModel, which reads text"),
        (DIT | {"norm_type": "layer_norm"}, "Transformer2DModel, of norm_type = 'layer_norm', and of this class"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel, which reads text, .*; known are DhariwalUNet"),
        ({"_class_name": "PixArtTransformer2DModel"}, "PixArtTransformer2DModel, which reads text"),
        ({"_class_name": ["UNet2DModel"]}, r"of the class \['UNet2DModel'\], which is not known here"),
        ({"_class_name": "UNetModel"}, "UNetModel lacks the field image_size; add it: an integer"),
        (UNET | {"act_fn": 3}, "act_fn = 3; pass a string"),
        (UNET | {"norm_eps": "x"}, "norm_eps = 'x'; pass a number"),
        (UNET | {"norm_eps": True}, "norm_eps = True; pass a number"),
        (UNET | {"norm_eps": -1.0}, "UNet2DModel: norm_eps = -1.0; pass a number of 0 or more"),
        (UNET | {"norm_eps": math.nan}, "UNet2DModel: norm_eps = nan; pass a number of 0 or more"),
        (UNET | {"mid_block_scale_factor": 0.0}, "UNet2DModel: mid_block_scale_factor = 0.0; pass one above 0"),
        (DIT | {"norm_eps": -1.0}, "DiTTransformer2DModel: norm_eps = -1.0; pass norm_eps >= 0"),
        (UNET | {"center_input_sample": "no"}, "center_input_sample = 'no'; pass true or false"),
        (UNET | {"center_input_sample": 0}, "center_input_sample = 0; pass true or false"),
        (UNET | {"block_out_channels": 32}, "block_out_channels = 32; pass a list, of an integer"),
        (UNET | {"block_out_channels": [8, "16"]}, r"block_out_channels\[1\] = '16'; pass an integer"),
        (UNET | {"block_out_channels": {}}, r"block_out_channels = {}; pass a list"),
        (UNET | {"layers_per_block": True}, "layers_per_block = True; pass an integer"),
        (UNET | {"layers_per_block": 1.0}, "layers_per_block = 1.0; pass an integer"),
        (UNET | {"layers_per_block": None}, "layers_per_block = None; pass an integer"),
        (UNET | {"attention_head_dim": "4"}, "attention_head_dim = '4'; pass an integer or None"),
    ],
)
def test_fields_of_another_value_or_type_are_named(config, message):
    with pytest.raises(ValueError, match=f"a/config.json: .*{message}"):
        skeleton_of_config(config, "a/config.json")


def test_fields_of_other_forms_of_the_same_are_read():
    given = {
        "norm_eps": 1,
        "sample_size": [8, 16],
        "attention_head_dim": None,
        "num_class_embeds": None,
        "freq_shift": 0,
    }
    network = skeleton_of_config(UNET | given, "a")
    assert network.norm_eps == 1 and network.shape == (8, 16, 3) and network.attention_head_dim is None


def sharded(folder, middle=""):
    """Put an index and one shard in the place of the file of weights."""
    tensors = {name: np.array(tensor) for name, tensor in map_tensors([folder / f"{STEM}.safetensors"]).items()}
    (folder / f"{STEM}.safetensors").unlink()
    shard = f"{STEM}{middle}-00001-of-00001.safetensors"
    write_tensors(folder / shard, tensors)
    write(folder / f"{STEM}.safetensors.index{middle}.json", {"weight_map": dict.fromkeys(tensors, shard)})


@pytest.mark.parametrize("flat", [False, True])
def test_weights_of_before_do_not_stay(pipeline, network, flat):
    if flat:
        for path in (*(pipeline / "unet").iterdir(), *(pipeline / "scheduler").iterdir()):
            path.rename(pipeline / path.name)
        for part in ("unet", "scheduler"):
            (pipeline / part).rmdir()
    folder = pipeline if flat else pipeline / "unet"
    shutil.copyfile(folder / f"{STEM}.safetensors", folder / f"{STEM}.fp16.safetensors")
    sharded(folder)
    (pipeline / "notes.txt").write_text("kept")
    sde, model = sgm.load(pipeline, progress=False)
    trained = eqx.tree_at(lambda model: model.network.network.conv_in.bias, model, jnp.arange(8.0))
    diffusers.save(pipeline, sde, trained, like=pipeline)
    assert [path.name for path in folder.glob(f"{STEM}*")] == [f"{STEM}.safetensors"]
    assert eqx.tree_equal(sgm.load(pipeline, progress=False), (sde, trained))
    assert (pipeline / "notes.txt").read_text() == "kept"


def test_shards_of_a_lone_network_do_not_stay(pipeline, network):
    unet = pipeline / "unet"
    sharded(unet)
    new = eqx.tree_at(lambda network: network.conv_in.bias, network, jnp.arange(8.0))
    diffusers.save_network(unet, new)
    assert sorted(path.name for path in unet.iterdir()) == ["config.json", f"{STEM}.safetensors"]
    assert eqx.tree_equal(diffusers.load_network(unet, progress=False), new)
    # In the folder of the pipeline it would not be read: its index names the other one.
    with pytest.raises(ValueError, match=r"save_network: .*pipeline holds something else already"):
        diffusers.save_network(pipeline, new)


def test_an_error_leaves_the_weights_of_before(pipeline, network, monkeypatch):
    sharded(pipeline / "unet")

    def fail(*arguments, **options):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("sgm.interop.diffusers.write.write_tensors", fail)
        with pytest.raises(OSError, match="no space left"):
            diffusers.save_network(pipeline / "unet", network)
    assert eqx.tree_equal(diffusers.load_network(pipeline / "unet", progress=False), network)


def test_a_file_beside_an_index_is_refused(pipeline):
    unet = pipeline / "unet"
    copy = shutil.copyfile(unet / f"{STEM}.safetensors", pipeline / "copy")
    sharded(unet)
    shutil.copyfile(copy, unet / f"{STEM}.safetensors")
    with pytest.raises(
        ValueError, match=rf"unet has both {STEM}.safetensors and {STEM}.safetensors.index.json, and one"
    ):
        sgm.load(pipeline)


@pytest.mark.parametrize("index", [{}, {"weight_map": ["a"]}, {"weight_map": {"a": 3}}])
def test_a_damaged_index_is_named(pipeline, index):
    (pipeline / "unet" / f"{STEM}.safetensors").unlink()
    write(pipeline / "unet" / f"{STEM}.safetensors.index.json", index)
    with pytest.raises(
        ValueError, match=r"index.json: weight_map = .*, which is not a file for each tensor; restore it"
    ):
        sgm.load(pipeline)


@pytest.mark.parametrize("dtype", [int, "int8", np.float64, float, "half a number", "torch.float16", bool])
def test_other_precisions_are_refused(pipeline, network, tmp_path, dtype):
    remedy = "pass 'float32', 'float16', 'bfloat16' or None"
    for name, call in {
        "load": lambda: diffusers.load(pipeline, dtype=dtype),
        "load_network": lambda: diffusers.load_network(pipeline, dtype=dtype),
        "save_network": lambda: diffusers.save_network(tmp_path / "new", network, dtype=dtype),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: dtype = .*; {remedy}"):
            call()
    loaded = sgm.load(pipeline, progress=False)
    with pytest.raises(ValueError, match=rf"^diffusers.save: dtype = .*; {remedy}"):
        diffusers.save(tmp_path / "new", *loaded, like=pipeline, dtype=dtype)
    assert not (tmp_path / "new").exists()


def test_a_precision_may_be_a_name_or_a_type(pipeline):
    for dtype in ("float16", np.float16, np.dtype("float16"), jnp.float16):
        assert diffusers.load_network(pipeline, dtype=dtype, progress=False).conv_in.kernel.dtype == np.float16


def test_parts_that_are_missing_are_named(pipeline):
    with pytest.raises(ValueError, match=r'scheduler = \'DDIMScheduler\', where .* such as {"_class_name": "DDIMSched'):
        diffusers.load(pipeline, scheduler="DDIMScheduler")
    with pytest.raises(ValueError, match=r"scheduler = '.*unet', where there is no scheduler_config.json"):
        diffusers.load(pipeline, scheduler=pipeline / "unet")
    with pytest.raises(ValueError, match=r"load: .*model_index.json is a file; pass the folder that it lies in"):
        diffusers.load(pipeline / "model_index.json")
    shutil.rmtree(pipeline / "unet")
    with pytest.raises(ValueError, match=r"by its model_index.json, .*pipeline has a folder unet, which is missing"):
        sgm.load(pipeline)


def test_a_precision_of_computing_is_told_before_weights_are_read(pipeline, types_unchecked):
    (pipeline / "unet" / f"{STEM}.safetensors").unlink()
    for call in (sgm.load, diffusers.load):
        with pytest.raises(ValueError, match=r"^load: precision = 'fp8'; pass .float32. or .bfloat16."):
            call(pipeline, precision="fp8")


def test_a_shard_that_is_missing_is_named(pipeline):
    sharded(pipeline / "unet")
    next((pipeline / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match=r"^load: .*pipeline/unet has no .*\.safetensors; download it again"):
        sgm.load(pipeline)


def of_the_hub(folder, monkeypatch):
    """Let the hub have what is in this folder."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))


def test_the_way_out_of_pickles_of_a_pipeline_of_the_hub(pipeline, monkeypatch):
    (pipeline / "unet" / f"{STEM}.safetensors").rename(pipeline / "unet" / f"{STEM}.bin")
    of_the_hub(pipeline, monkeypatch)
    advice = (
        "from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained('someone/ddpm', "
        'use_safetensors=False).save_pretrained("folder"). Then load "folder".'
    )
    with pytest.raises(ValueError) as raised:
        sgm.load("someone/ddpm")
    assert str(raised.value).endswith(advice)


def test_the_way_out_of_pickles_of_a_network_of_the_hub(pipeline, monkeypatch):
    unet = pipeline / "unet"
    (unet / f"{STEM}.safetensors").unlink()
    of_the_hub(unet, monkeypatch)
    with pytest.raises(ValueError) as raised:
        diffusers.load("someone/unet", scheduler=SCHEDULER, revision="main")
    for words in (
        "UNet2DModel.from_pretrained('someone/unet', revision='main', use_safetensors=False).save_pretrained(",
        'Then load "folder", with scheduler=, which',
    ):
        assert words in str(raised.value)


def test_the_way_out_leads_to_a_folder_that_loads(tmp_path):
    torch = pytest.importorskip("torch", reason="it makes the models that are read; pip install '.[torch]'")
    theirs = pytest.importorskip("diffusers", reason="it makes the models that are read; pip install '.[torch]'")
    torch.manual_seed(0)
    made = theirs.DDPMPipeline(theirs.UNet2DModel(**FIELDS), theirs.DDPMScheduler(num_train_timesteps=50))
    made.save_pretrained(tmp_path / "pickles", safe_serialization=False)
    again = theirs.DiffusionPipeline.from_pretrained(tmp_path / "pickles", use_safetensors=False)
    again.save_pretrained(tmp_path / "folder")
    sde, model = sgm.load(tmp_path / "folder", progress=False)
    assert sde.steps == 50
    np.testing.assert_array_equal(model.network.network.conv_in.bias, made.unet.conv_in.bias.detach().numpy())
