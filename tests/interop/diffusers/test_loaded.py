"""What a loaded model is for: training on, and all that a model of ours does."""

import importlib.util
import pathlib
import runpy
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from interop.diffusers.pipelines import random_network, write_pipeline
from networks import predict

import sgm
from sgm.interop import diffusers
from sgm.training import Adam, load_run

# optax, Orbax and the gradient of JAX's attention in bfloat16 promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

EXAMPLE = pathlib.Path(__file__).parents[3] / "docs" / "examples" / "loaded_model.py"
STEPS = 24


def quiet(network):
    """The network with an output of about the size of noise, so that its flow is smooth."""
    return eqx.tree_at(lambda network: network.conv_out.kernel, network, replace_fn=lambda kernel: kernel / 4)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("loaded") / "pipeline", quiet(random_network()))


@pytest.fixture(scope="module")
def images():
    """Smooth images of 256 grey levels."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (64, 2, 2, 3))
    return np.uint8(coarse.repeat(4, axis=1).repeat(4, axis=2) + rng.integers(0, 56, (64, 8, 8, 3)))


def frozen(model):
    network = model.network.network
    return [network.time_embedding, network.down_blocks]


@pytest.fixture(scope="module")
def tuned(pipeline, images, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    sde, model = sgm.load(pipeline, precision="bfloat16", progress=False)
    settings = {"steps": STEPS, "batch_size": 16, "average_decay": 0.9, "optimiser": Adam(3e-3, warmup=2)}
    how = {"frozen": frozen, "run": run, "progress": False}
    _, trained, history = sgm.train(
        sde, model, sgm.data.Arrays(np.float32(images / 127.5 - 1)), jr.key(1), **settings, **how
    )
    return model, trained, history, run, sde


@pytest.mark.slow
def test_a_loaded_model_is_trained_on_in_bfloat16(tuned):
    model, trained, history, _, _ = tuned
    assert model.network.precision == "bfloat16"
    assert history["loss"][-6:].max() < history["loss"][:3].min()
    assert {leaf.dtype for leaf in _weights(trained)} == {jnp.dtype("float32")}
    for before, after in zip(_weights(frozen(model)), _weights(frozen(trained)), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not eqx.tree_equal(model.network.network.up_blocks, trained.network.network.up_blocks)


@pytest.mark.slow
def test_the_average_is_kept_beside_the_raw_weights(tuned):
    model, trained, _, run, sde = tuned
    raw = load_run(run, sde, model, average=False)[1]
    average = load_run(run, sde, model)[1]
    assert eqx.tree_equal(average, trained)
    assert not eqx.tree_equal(raw, trained)


@pytest.mark.slow
def test_a_tuned_model_is_saved_in_both_layouts(tuned, pipeline, tmp_path):
    _, trained, _, _, sde = tuned
    diffusers.save(tmp_path / "theirs", sde, trained, like=pipeline)
    sgm.save(tmp_path / "ours", sde, trained)
    for folder in ("theirs", "ours"):
        _, again = sgm.load(tmp_path / folder, progress=False)
        assert eqx.tree_equal(again.network.network, trained.network.network)


@pytest.mark.slow
def test_bfloat16_is_near_single_precision(pipeline):
    u, level = jr.normal(jr.key(0), (8, 8, 3)), jnp.asarray(-0.3)
    single, half = (
        predict(sgm.load(pipeline, precision=precision, progress=False)[1], level, u).noise
        for precision in ("float32", "bfloat16")
    )
    assert single.dtype == half.dtype == jnp.float32
    error = jnp.linalg.norm(single - half) / jnp.linalg.norm(single)
    assert 1e-5 < error < 0.05


@pytest.mark.slow
def test_the_example(pipeline, images, tmp_path):
    spec = importlib.util.spec_from_file_location("loaded_model", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    # Of one level, which compiles sooner.
    few = {"block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    write_pipeline(tmp_path / "pipeline", quiet(random_network(**few)))
    np.savez(tmp_path / "images.npz", x=images)
    found = example.main(str(tmp_path / "pipeline"), tmp_path / "images.npz", count=3)
    assert all(np.isfinite(number) for number in found.values())
    assert found["decode(encode(x)) - x, at most"] < 1e-3
    assert found["mean error of the half that was seen"] < 0.1 < found["mean error of the hidden half"]
    assert found["norm of its gradient"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "required: name, path"),
        (["folder", "none.npz"], "path none.npz is no file"),
        (["--help"], "number of images"),
    ],
)
def test_the_example_says_what_it_reads(words, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert ended.value.code == (0 if words == ["--help"] else 2)
    assert told in "".join(capsys.readouterr())


def _weights(part):
    return jax.tree.leaves(eqx.filter(part, eqx.is_inexact_array))
