"""Checkpoints of EDM and ADM, converted by the tool, are loaded as the models that they are."""

import importlib.util
import pickle
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.interop.adm import UNetModel
from sgm.interop.diffusers import load, save
from sgm.interop.edm.preconditioning import EDMGrid
from sgm.interop.timestep.tensors import to_tensors
from sgm.sde import VE, VP, DiscreteChain

torch = pytest.importorskip("torch", reason="needs torch, on the CPU: pip install torch")
edm_torch = pytest.importorskip("interop.edm_torch", reason="needs torch")

TOOL = Path(__file__).parents[2] / "docs" / "examples" / "to_safetensors.py"
CONFIG = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
NCSN = {"resample_filter": [1, 3, 3, 1], "encoder_type": "residual", "embedding_type": "fourier", "augment_dim": 9}
FLAGS = (
    "--image_size 8 --num_channels 32 --num_res_blocks 1 --channel_mult 1,2 --attention_resolutions 4 --num_heads 2 "
    "--use_fp16 True"
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("to_safetensors", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pickled(path, preconditioned):
    generator = torch.Generator().manual_seed(0)
    for parameter in preconditioned.eval().requires_grad_(False).parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 10) ** 0.5)
    path.write_bytes(pickle.dumps({"ema": preconditioned, "loss_fn": None}))
    return path


KINDS = {
    "EDMPrecond": ("SongUNet", {}),
    "VPPrecond": ("SongUNet", {"label_dim": 5}),
    "VEPrecond": ("SongUNet", NCSN),
    "iDDPMPrecond": ("DhariwalUNet", {"out_channels": 6}),
}


def converted(kind, tool, tmp_path):
    """A network of torch, what its pickle is loaded as, and a label for both where they read one."""
    name, changes = KINDS[kind]
    theirs = getattr(edm_torch, kind)(getattr(edm_torch, name)(**CONFIG | changes))
    path = pickled(tmp_path / "model.pkl", theirs)
    tool.main(["edm", str(path), str(tmp_path / "folder")])
    labels = torch.eye(5)[3][None] if "label_dim" in changes else None
    cond = None if labels is None else sgm.Condition(label=jnp.asarray(3))
    return theirs, load(tmp_path / "folder", progress=False), labels, cond


@pytest.mark.slow_except("EDMPrecond")
@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_of_edm_denoises_as_in_torch(kind, tool, tmp_path):
    theirs, (sde, model, _), labels, cond = converted(kind, tool, tmp_path)
    assert type(sde) is {"VPPrecond": VP, "iDDPMPrecond": DiscreteChain}.get(kind, VE)
    x0 = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    denoise = eqx.filter_jit(lambda model, level, u: model.predict(level, u, cond).denoised)
    # At the levels of the chain, where EDM does not take the nearest for its timestep.
    sigmas = theirs.levels()[[0, 20, 45]].tolist() if kind == "iDDPMPrecond" else [0.03, 0.7, 60.0]
    for sigma in sigmas:
        x = (1 + sigma) * x0
        wanted = theirs(torch.from_numpy(x).movedim(-1, 0)[None], sigma, labels)[0].movedim(0, -1).numpy()
        found = denoise(model, jnp.log(jnp.asarray(sigma)), jnp.asarray(x / np.hypot(1, sigma), jnp.float32))
        assert np.linalg.norm(found - wanted) < 2e-5 * np.linalg.norm(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_of_edm_draws_images(kind, tool, tmp_path):
    _, (sde, model, scheduler), _, cond = converted(kind, tool, tmp_path)
    drawn = sgm.sample(sde, model, jr.key(0), 2, method=scheduler.sampler, cond=cond)
    assert drawn.shape == (2, 8, 8, 3) and jnp.all(jnp.isfinite(drawn))


def test_the_process_of_edm_is_that_of_its_sampler(tool, tmp_path):
    theirs = edm_torch.EDMPrecond(edm_torch.SongUNet(**CONFIG))
    tool.main(["edm", str(pickled(tmp_path / "model.pkl", theirs)), str(tmp_path / "folder")])
    sde, model, scheduler = load(tmp_path / "folder", progress=False, units=sgm.Units(127.5, 127.5))
    assert sde == VE(0.002, 80.0) and scheduler.prediction.sigma_data == 0.7
    assert scheduler.sampler == sgm.EDMHeun(17, grid=EDMGrid())
    np.testing.assert_allclose(model.units.standardise(jnp.asarray([0.0, 255.0])), [-1, 1])


def test_tensors_are_those_of_the_file(tool, tmp_path):
    network = edm_torch.SongUNet(**CONFIG | NCSN)
    tool.main(["edm", str(pickled(tmp_path / "model.pkl", edm_torch.EDMPrecond(network))), str(tmp_path / "folder")])
    found = to_tensors(load(tmp_path / "folder", progress=False).model.network.network)
    wanted = {name: part.numpy() for name, part in network.state_dict().items() if not name.endswith("filter")}
    assert found.keys() == wanted.keys() and "map_augment.weight" in found and "map_noise.freqs" in found
    assert all(np.array_equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_saved_again_as_it_was_and_as_one_of_ours(kind, tool, tmp_path):
    name, changes = KINDS[kind]
    theirs = getattr(edm_torch, kind)(getattr(edm_torch, name)(**CONFIG | changes))
    tool.main(["edm", str(pickled(tmp_path / "model.pkl", theirs)), str(tmp_path / "folder")])
    sde, model, _ = load(tmp_path / "folder", progress=False)
    save(tmp_path / "again", sde, model, like=tmp_path / "folder")
    sgm.save(tmp_path / "ours", sde, model)
    for found in (load(tmp_path / "again", progress=False)[:2], sgm.load(tmp_path / "ours")):
        assert jax.tree.structure(found) == jax.tree.structure((sde, model))
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves((sde, model)), strict=True)
        assert all(np.array_equal(one, two) for one, two in pairs)


def test_a_pickle_of_another_network_is_refused(tool, tmp_path):
    with pytest.raises(SystemExit, match="its class is Preconditioned; what is known is EDMPrecond"):
        path = pickled(tmp_path / "model.pkl", edm_torch.Preconditioned(edm_torch.SongUNet(**CONFIG)))
        tool.main(["edm", str(path), str(tmp_path / "folder")])
    theirs = edm_torch.EDMPrecond(edm_torch.SongUNet(**CONFIG))
    path = pickled(tmp_path / "model.pkl", theirs)
    theirs.model.init_kwargs["resample_filter"] = [1, 3, 3, 1]
    path.write_bytes(pickle.dumps({"ema": theirs}))
    with pytest.raises(SystemExit, match="resample_filter is not what resample_filter = "):
        tool.main(["edm", str(path), str(tmp_path / "folder")])
    with pytest.raises(SystemExit):
        tool.main(["edm", str(path), str(tmp_path / "folder"), "--flags", FLAGS])


@pytest.mark.slow
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_dictionary_of_adm_is_loaded(schedule, learns, tool, tmp_path):
    flags = f"{FLAGS} --noise_schedule {schedule} --learn_sigma {learns} --diffusion_steps 100"
    config, _ = tool.read_flags(flags)
    config.pop("_class_name")
    network = UNetModel(**{name: _as_tuple(value) for name, value in config.items()}, key=jr.key(0))
    tensors = {name: torch.tensor(array) for name, array in to_tensors(network).items()}
    torch.save(tensors, tmp_path / "mine.pt")
    tool.main(["adm", str(tmp_path / "mine.pt"), str(tmp_path / "folder"), "--flags", flags])
    sde, model, scheduler = load(tmp_path / "folder", progress=False)
    betas = sgm.sde.LinearBetas(100, 1e-3, 0.2) if schedule == "linear" else sgm.sde.CosineBetas(100)
    np.testing.assert_allclose(sde.betas.values, betas.values, rtol=1e-6)
    assert model.prediction == (sgm.model.WithVariance(sgm.model.Noise()) if learns else sgm.model.Noise())
    assert eqx.tree_equal(jax.tree.map(np.asarray, model.network.network), jax.tree.map(np.asarray, network))
    u = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 3)), jnp.float32)
    estimate = model.predict(sde.level(jnp.asarray(41.0)), u)
    output = eqx.filter_jit(network)(u, jnp.asarray(40.0))
    np.testing.assert_allclose(estimate.noise, output[..., :3], rtol=1e-4, atol=1e-5)
    if learns:
        np.testing.assert_allclose(estimate.log_variance, output[..., 3:], rtol=1e-4, atol=1e-5)
        assert isinstance(scheduler.sampler.variance, sgm.model.Interpolated)


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


# By the paper's table of hyperparameters (Dhariwal and Nichol 2021, arXiv:2105.05233), in millions.
PARAMETERS = {"64x64_diffusion": 296, "128x128_diffusion": 422, "256x256_diffusion": 554, "512x512_diffusion": 559}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_networks_of_adm_have_the_parameters_of_the_paper(name, tool):
    config, scheduler = tool.read_flags(tool.PUBLISHED[name])
    config.pop("_class_name")
    fields = {field: _as_tuple(value) for field, value in config.items()}
    network = eqx.filter_eval_shape(lambda: UNetModel(**fields, key=jr.key(0)))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(network))
    assert round(count / 1e6) == PARAMETERS[name]
    assert scheduler["beta_schedule"] == ("squaredcos_cap_v2" if name == "64x64_diffusion" else "linear")
    assert scheduler["beta_start"] == 1e-4 and scheduler["beta_end"] == 0.02


def test_what_is_not_known_of_adm_is_told(tool, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tool.main(["adm", str(tmp_path / "mine.pt"), str(tmp_path / "folder")])
    assert "mine.pt is no file; pass one" in capsys.readouterr().err
    (tmp_path / "mine.pt").touch()
    with pytest.raises(SystemExit, match=r"mine\.pt: what network it is of is not known from its name; pass --flags"):
        tool.main(["adm", str(tmp_path / "mine.pt"), str(tmp_path / "folder")])
    for flags, words in {
        "--dims 3": "unrecognized arguments: --dims 3",
        "--image_size 48": "channel_mult must be given for image_size 48",
        "--learn_sigma yes": "'yes' is neither True nor False",
        "--rescale_timesteps True --diffusion_steps 4000": "another number of steps than 1000",
    }.items():
        with pytest.raises(SystemExit):
            tool.read_flags(flags)
        assert words in capsys.readouterr().err
