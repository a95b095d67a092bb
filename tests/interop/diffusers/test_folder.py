"""Folders of diffusers: what is read, what is written again, and what is refused."""

import fnmatch
import json
import shutil

import equinox as eqx
import huggingface_hub
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from interop.diffusers.pipelines import FIELDS, INDEX, SCHEDULER, random_network, write, write_pipeline

import sgm
from sgm.interop import diffusers
from sgm.interop.tensor_files import map_tensors, write_tensors
from sgm.nn import MLP

WEIGHTS = "diffusion_pytorch_model.safetensors"


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def made(tmp_path_factory, network):
    return write_pipeline(tmp_path_factory.mktemp("made") / "pipeline", network)


@pytest.fixture
def pipeline(made, tmp_path):
    """A pipeline that a test may change."""
    return shutil.copytree(made, tmp_path / "pipeline")


def tensors_of(folder):
    return {name: np.array(tensor) for name, tensor in map_tensors(sorted(folder.glob("*.safetensors"))).items()}


def test_a_pipeline_is_a_process_and_a_model(pipeline, network):
    sde, model = sgm.load(pipeline, progress=False)
    assert sde == sgm.DiscreteChain(sgm.sde.LinearBetas(50, 1e-4, 0.1))
    assert isinstance(model.prediction, sgm.model.Noise) and model.shape == (8, 8, 3)
    assert eqx.tree_equal(model.network.network, network)
    loaded = diffusers.load(pipeline, units=sgm.Units.of_levels(256), progress=False)
    assert isinstance(loaded.scheduler.sampler, sgm.Ancestral)
    assert eqx.tree_equal(loaded.model.units, sgm.Units.of_levels(256))


def test_a_pipeline_may_be_flat(pipeline, network):
    """As google/ddpm-cifar10-32 is: the files of its parts lie beside each other."""
    for path in (*(pipeline / "unet").iterdir(), *(pipeline / "scheduler").iterdir()):
        path.rename(pipeline / path.name)
    for part in ("unet", "scheduler"):
        (pipeline / part).rmdir()
    assert eqx.tree_equal(sgm.load(pipeline, progress=False)[1].network.network, network)


def test_a_network_alone_needs_a_scheduler(pipeline, network, tmp_path):
    alone = shutil.copytree(pipeline / "unet", tmp_path / "alone")
    with pytest.raises(ValueError, match=r"alone is a network without a scheduler, .*; pass scheduler=, the path of a"):
        sgm.load(alone)
    with pytest.raises(
        ValueError, match=r"unet is a network without .*; pass the folder of its pipeline, .*pipeline, or"
    ):
        sgm.load(pipeline / "unet")
    assert eqx.tree_equal(diffusers.load_network(alone, progress=False), network)
    for scheduler in (SCHEDULER, pipeline, pipeline / "scheduler", pipeline / "scheduler" / "scheduler_config.json"):
        sde, _, _ = diffusers.load(alone, scheduler=scheduler, progress=False)
        assert sde.steps == 50


def sharded(folder, middle=""):
    """Divide the weights into two files with an index, as diffusers does above a size."""
    tensors = tensors_of(folder)
    (folder / WEIGHTS).unlink()
    names, weight_map = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model{middle}-0000{number}-of-00002.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    write(folder / f"{WEIGHTS}.index{middle}.json", {"metadata": {}, "weight_map": weight_map})


@pytest.mark.parametrize("variant", [None, "ema"])
def test_weights_in_shards(pipeline, network, variant):
    sharded(pipeline / "unet", "" if variant is None else f".{variant}")
    _, model = sgm.load(pipeline, variant=variant, progress=False)
    assert eqx.tree_equal(model.network.network, network)


def test_a_shard_that_lies_elsewhere_is_refused(pipeline):
    (pipeline / "unet" / WEIGHTS).unlink()
    write(pipeline / "unet" / f"{WEIGHTS}.index.json", {"weight_map": {"conv_in.weight": "../../secret.safetensors"}})
    with pytest.raises(ValueError, match=r"it names the file \.\./\.\./secret\.safetensors, which lies elsewhere"):
        sgm.load(pipeline)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_other_precisions_become_single_and_go_back(pipeline, tmp_path, dtype):
    unet = pipeline / "unet"
    stored = {name: tensor.astype(dtype) for name, tensor in tensors_of(unet).items()}
    write_tensors(unet / WEIGHTS, stored)
    sde, model = sgm.load(pipeline, progress=False)
    weight = model.network.network.conv_in.kernel
    assert weight.dtype == np.float32
    assert np.all(np.transpose(stored["conv_in.weight"].astype(np.float32), (2, 3, 1, 0)) == weight)
    if dtype != np.float64:  # which single precision cannot hold
        as_stored = diffusers.load_network(unet, dtype=None, progress=False)
        assert as_stored.conv_in.kernel.dtype == dtype
        again = diffusers.save(tmp_path / "again", sde, model, like=pipeline, dtype=dtype)
        written = tensors_of(again / "unet")
        assert all(stored[name].tobytes() == written[name].tobytes() for name in stored)


def test_a_round_trip_is_the_same_files(pipeline, tmp_path):
    again = diffusers.save(tmp_path / "again", *sgm.load(pipeline, progress=False), like=pipeline)
    before, after = tensors_of(pipeline / "unet"), tensors_of(again / "unet")
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype for name in before)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    for name in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        assert read(pipeline / name) == read(again / name)
    assert read(again / "unet" / "config.json").items() >= FIELDS.items()


def test_a_model_of_diffusers_is_saved_as_ours(pipeline, tmp_path):
    loaded = sgm.load(pipeline, progress=False)
    guided = (loaded[0], sgm.model.Clipped(loaded[1]))
    assert eqx.tree_equal(sgm.load(sgm.save(tmp_path / "ours", *guided), progress=False), guided)


def test_what_is_not_of_the_pipeline_is_not_saved_as_one(pipeline, tmp_path):
    sde, model = sgm.load(pipeline, progress=False)
    with pytest.raises(ValueError, match="the process is another than the model's VP; pass the pipeline that"):
        diffusers.save(tmp_path / "new", sgm.VP(), model, like=pipeline)
    with pytest.raises(ValueError, match="the prediction is another than the model's Velocity"):
        velocity = eqx.tree_at(lambda model: model.prediction, model, sgm.model.Velocity())
        diffusers.save(tmp_path / "new", sde, velocity, like=pipeline)
    ours = sgm.ScoreModel(MLP((2,), 8, 1, key=jr.key(0)), shape=(2,))
    with pytest.raises(
        ValueError, match=r"the model is a ScoreModel of a MLP, which is no network of diffusers; save it"
    ):
        diffusers.save(tmp_path / "new", sde, ours, like=pipeline)
    with pytest.raises(ValueError, match=r"has no scheduler; pass the folder of a pipeline, or save the network alone"):
        diffusers.save(tmp_path / "new", sde, model, like=pipeline / "unet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"diffusers.save: .*full holds something else already"):
        diffusers.save(tmp_path / "full", sde, model, like=pipeline)
    assert not (tmp_path / "new").exists()


def test_parts_that_are_not_read_are_named(pipeline, tmp_path):
    parts = {"vae": ["diffusers", "AutoencoderKL"], "safety_checker": [None, None], "requires_safety_checker": False}
    write(pipeline / "model_index.json", INDEX | parts)
    write(pipeline / "vae" / "config.json", {"_class_name": "AutoencoderKL", "scaling_factor": 0.18215})
    with pytest.warns(
        match=r"pipeline: vae \(AutoencoderKL\). Process and model are of the latents of its vae, .*0.18215"
    ):
        sde, model = sgm.load(pipeline, progress=False)
    with pytest.warns(match=r"not written to .*again: vae \(AutoencoderKL\); copy them from .*pipeline"):
        diffusers.save(tmp_path / "again", sde, model, like=pipeline)
    write(pipeline / "model_index.json", {name: part for name, part in (INDEX | parts).items() if name != "unet"})
    with pytest.raises(ValueError, match=r"is a DDPMPipeline of scheduler, vae, none of which is unet or transformer"):
        sgm.load(pipeline)


def changed(pipeline, **fields):
    config = pipeline / "unet" / "config.json"
    write(config, {name: value for name, value in (read(config) | fields).items() if value is not ...})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"_class_name": "Kandinsky3UNet"},
            "unet/config.json: it is of the class Kandinsky3UNet, which reads text, .*; known are .*UNet2DModel",
        ),
        ({"_class_name": ...}, "unet/config.json: it is of the class None"),
        (
            {"attend_twice": True, "b": 1},
            "config.json: UNet2DModel has no field attend_twice, b here; what it changes is",
        ),
        ({"up_block_types": ["UpBlock2D", "StrangeBlock2D"]}, "unet/config.json: .*StrangeBlock2D"),
        ({"block_out_channels": [8, 24]}, r"pipeline/unet: .* has shape .*, but by config.json it has"),
        ({"layers_per_block": 2}, r"pipeline/unet: tensors missing: down_blocks"),
    ],
)
def test_a_config_that_is_not_of_the_weights_is_named(pipeline, fields, message):
    changed(pipeline, **fields)
    with pytest.raises(ValueError, match=message):
        sgm.load(pipeline)


def test_missing_and_extra_tensors_are_named(pipeline):
    path = pipeline / "unet" / WEIGHTS
    tensors = tensors_of(pipeline / "unet")
    tensors["conv_middle.weight"] = tensors.pop("conv_out.weight")
    write_tensors(path, tensors)
    with pytest.raises(
        ValueError, match=r"missing: conv_out\.weight and tensors not of this model: conv_middle\.weight"
    ):
        sgm.load(pipeline)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "diffusion_pytorch_model.bin",
            r"from diffusers import UNet2DModel; .*use_safetensors=False\).save_pretrained\(",
        ),
        ("model.ckpt", r"import torch, safetensors.torch; .*torch.load\('.*model.ckpt', weights_only=True\)"),
    ],
)
def test_pickles_are_refused_with_a_way_out(pipeline, name, advice):
    (pipeline / "unet" / WEIGHTS).rename(pipeline / "unet" / name)
    with pytest.raises(ValueError, match=rf"but {name}, a pickle, which can run code when it is read. .*{advice}"):
        sgm.load(pipeline)


def test_weights_and_variants_that_are_not_there_are_named(pipeline):
    with pytest.raises(
        ValueError, match=r"pipeline/unet has no diffusion_pytorch_model.fp16.safetensors; leave variant out"
    ):
        sgm.load(pipeline, variant="fp16")
    weights = pipeline / "unet" / WEIGHTS
    weights.rename(pipeline / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(
        ValueError, match=r"pipeline/unet has no diffusion_pytorch_model.safetensors; pass variant='fp16', which it has"
    ):
        sgm.load(pipeline)
    sgm.load(pipeline, variant="fp16", progress=False)
    (pipeline / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"pipeline/unet has no diffusion_pytorch_model.safetensors; download it again, or restore it"
    ):
        sgm.load(pipeline)
    with pytest.raises(ValueError, match=r"average = False, but .*pipeline is a model of diffusers, which has no"):
        sgm.load(pipeline, average=False)


def test_of_the_hub_only_what_is_read_is_downloaded(pipeline, network, tmp_path, monkeypatch):
    for name in ("unet/diffusion_pytorch_model.bin", "unet/other.safetensors", "vae/model.safetensors", "a.ckpt"):
        (pipeline / name).parent.mkdir(exist_ok=True)
        (pipeline / name).write_bytes(b"")
    cache = tmp_path / "cache"

    def snapshot_download(repo_id, *, revision, allow_patterns):
        for path in pipeline.rglob("*"):
            name = str(path.relative_to(pipeline))
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, cache / name)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    _, model = sgm.load("someone/ddpm", progress=False)
    assert eqx.tree_equal(model.network.network, network)
    assert [str(path.relative_to(cache)) for path in sorted(cache.rglob("*.*"))] == [
        *("model_index.json", "scheduler/scheduler_config.json", "unet/config.json", f"unet/{WEIGHTS}")
    ]
    (pipeline / "unet" / WEIGHTS).unlink()
    shutil.rmtree(cache)
    with pytest.raises(
        ValueError, match=r"load: someone/ddpm/unet has no diff.*\. Where its weights are a \.bin alone, that is"
    ):
        sgm.load("someone/ddpm")


@pytest.fixture(scope="module")
def torch_pipeline(tmp_path_factory):
    """A pipeline that diffusers itself has made and written."""
    torch = pytest.importorskip("torch", reason="it makes the models that are read; pip install '.[torch]'")
    theirs = pytest.importorskip("diffusers", reason="it makes the models that are read; pip install '.[torch]'")
    torch.manual_seed(0)
    unet, folder = theirs.UNet2DModel(**FIELDS), tmp_path_factory.mktemp("torch")
    theirs.DDPMPipeline(unet, theirs.DDPMScheduler(num_train_timesteps=50)).save_pretrained(folder / "pipeline")
    unet.save_pretrained(folder / "shards", max_shard_size=20_000)
    unet.save_pretrained(folder / "half", variant="fp16", max_shard_size=20_000)
    unet.save_pretrained(folder / "pickle", safe_serialization=False)
    return theirs, folder


def test_what_diffusers_writes_is_read(torch_pipeline):
    _, folder = torch_pipeline
    _, model = sgm.load(folder / "pipeline", progress=False)
    written = tensors_of(folder / "pipeline" / "unet")
    kernel = np.transpose(written["conv_in.weight"], (2, 3, 1, 0))
    assert np.all(np.asarray(model.network.network.conv_in.kernel) == kernel)
    for name, variant in (("shards", None), ("half", "fp16")):
        assert len(list((folder / name).glob("*.safetensors"))) > 2
        again = diffusers.load_network(folder / name, variant=variant, progress=False)
        assert eqx.tree_equal(again, model.network.network)
    with pytest.raises(ValueError, match=r"but diffusion_pytorch_model.bin, a pickle"):
        diffusers.load_network(folder / "pickle")


def test_what_is_written_diffusers_reads(torch_pipeline, tmp_path):
    theirs, folder = torch_pipeline
    loaded = sgm.load(folder / "pipeline", progress=False)
    again = diffusers.save(tmp_path / "again", *loaded, like=folder / "pipeline")
    first, second = (theirs.DDPMPipeline.from_pretrained(path) for path in (folder / "pipeline", again))
    weights = [pipeline.unet.state_dict() for pipeline in (first, second)]
    assert weights[0].keys() == weights[1].keys()
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])
    configs = [dict(pipeline.unet.config) for pipeline in (first, second)]
    kept = [{name: value for name, value in config.items() if not name.startswith("_")} for config in configs]
    assert kept[0] == kept[1]
