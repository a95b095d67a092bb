"""Saved models: what is written, what comes back, and what is refused."""

import json
import math
import pathlib
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import NETWORKS, randomised

import sgm
from sgm.interop.saved import FORMAT, SavedError
from sgm.interop.tensor_files import TensorFileError, map_tensors, write_tensors
from sgm.model import (
    AbstractModel,
    AutoGuidance,
    ClassifierFree,
    Clipped,
    Composed,
    Conditioned,
    Empirical,
    Gaussian,
    GaussianMixture,
    Observations,
    PerExample,
    Thresholded,
    Uniform,
    Unobserved,
    WithUnits,
)
from sgm.nn import MLP, Conditioning, ConvDense, Transformer
from sgm.options import ExperimentError, choices
from sgm.sde import LearnedLogSNR, TableBetas

FIXTURE = pathlib.Path(__file__).parents[1] / "fixtures" / "saved_format_1"
CONDITIONING = Conditioning(params=2, null=True)
COND = sgm.Condition(params=jnp.asarray([0.3, -1.0]))
CHAIN = sgm.DiscreteChain(TableBetas((0.1, 0.3, 1.0)))
UNITS = sgm.Units(jnp.asarray([3.0, -1.0]), jnp.asarray([0.1, 7.0]))


def network(key=0, **options):
    return randomised(MLP((2,), 8, 1, conditioning=CONDITIONING, key=jr.key(key), **options))


def model(key=0):
    return sgm.ScoreModel(network(key), sgm.model.Karras(0.7), shape=(2,), units=UNITS)


def tabular():
    joint = Transformer((2,), 8, 1, 2, conditioning=Conditioning(observed=2), key=jr.key(0))
    return sgm.ScoreModel(joint, shape=(2,))


PROCESSES = {
    "VP": sgm.VP(t0=1e-4),
    "cosine": sgm.VP(sgm.sde.Cosine(ratio_max=math.inf)),
    "learned": sgm.VP(eqx.tree_at(lambda s: s.heights, LearnedLogSNR(width=3), jnp.asarray([0.1, -2.0, 0.4]))),
    "traced": sgm.VE(0.01, jnp.asarray(30.0)),
    "SubVP": sgm.SubVP(),
    "Rectified": sgm.Rectified(),
    "chain": CHAIN,
    "times": sgm.DiscreteChain.at_times(sgm.VP(), np.linspace(0.1, 1.0, 4)),
}
MODELS = {
    "ScoreModel": model,
    "AutoGuidance": lambda: AutoGuidance(model(), model(1), 2.0),
    "ClassifierFree": lambda: ClassifierFree(model(), jnp.asarray(1.5), interval=(0.1, math.inf)),
    "PerExample": lambda: ClassifierFree(model(), PerExample(jnp.arange(3.0))),
    "Clipped": lambda: Clipped(model(), low=-3.0),
    "Thresholded": lambda: Thresholded(model()),
    "Composed": lambda: Composed((model(), model(1)), (0.5, jnp.asarray(0.5))),
    "Conditioned": lambda: Conditioned(model(), COND),
    "Empirical": lambda: Empirical(jr.normal(jr.key(0), (3, 2))),
    "Gaussian": lambda: Gaussian(jnp.asarray([1.0, 2.0]), jnp.asarray([[2.0, 0.3], [0.3, 1.0]])),
    "GaussianMixture": lambda: GaussianMixture(jnp.eye(2), jnp.asarray([0.1, 0.2]), jnp.asarray([0.4, 0.6])),
    "Uniform": lambda: Uniform((0.0, -1.0), (1.0, 3.0)),
    "NoisedUniform": lambda: Uniform((0.0, -1.0), (1.0, 3.0)).marginal(sgm.VP(), 0.5),
    "WithUnits": lambda: WithUnits(Gaussian(jnp.zeros(2), jnp.eye(2)), UNITS),
    "Observations": lambda: Observations(
        model(), sgm.Condition(params=jnp.ones((3, 2))), Gaussian(jnp.zeros(2), jnp.eye(2)).in_units(UNITS)
    ),
    "Unobserved": lambda: Unobserved(tabular(), (1,), jnp.asarray([0.4])),
}
PREDICTIONS = [
    sgm.model.Noise(),
    sgm.model.WithVariance(sgm.model.MeanCoefficient(CHAIN)),
    sgm.model.Karras(jnp.asarray(0.5)),
]


def returned(tmp_path, sde, model):
    return sgm.load(sgm.save(tmp_path / "saved", sde, model), progress=False)


@pytest.mark.parametrize("sde", PROCESSES.values(), ids=PROCESSES)
def test_a_process_comes_back_to_the_bit(tmp_path, sde):
    assert eqx.tree_equal(returned(tmp_path, sde, MODELS["Gaussian"]())[0], sde)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_comes_back_to_the_bit(tmp_path, make):
    made = make()
    assert eqx.tree_equal(returned(tmp_path, sgm.VP(), made)[1], made)


def test_every_model_of_the_library_is_among_them():
    ours = {cls.__name__ for cls in choices(AbstractModel, whole=True) if cls.__module__.startswith("sgm.model.")}
    assert ours <= set(MODELS)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: type(prediction).__name__)
def test_a_prediction_comes_back(tmp_path, prediction):
    made = sgm.ScoreModel(network(outputs=prediction.outputs), prediction, shape=(2,))
    assert eqx.tree_equal(returned(tmp_path, CHAIN, made)[1], made)


@pytest.mark.parametrize(
    "make", [*NETWORKS.values(), lambda: ConvDense((8, 8, 1), outputs=1, key=jr.key(0))], ids=[*NETWORKS, "ConvDense"]
)
def test_a_network_comes_back_to_the_bit(tmp_path, make):
    made = sgm.ScoreModel(randomised(make()), shape=(8, 8, 1))
    again = returned(tmp_path, sgm.VP(), made)[1]
    assert eqx.tree_equal(again, made)


def test_a_model_in_half_precision_comes_back_in_it(tmp_path):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, model())
    assert eqx.tree_equal(returned(tmp_path, sgm.VP(), half)[1], half)


def test_double_precision_is_kept_where_it_is_on(tmp_path, float64):
    made = Gaussian(jnp.asarray([1 / 3, 0.1]), jnp.eye(2))
    folder = sgm.save(tmp_path / "saved", sgm.VP(), made)
    assert eqx.tree_equal(sgm.load(folder, progress=False)[1], made)
    with jax.enable_x64(False):
        single = sgm.load(folder, progress=False)[1]
    assert single.mean.dtype == np.float32 and np.all(np.asarray(single.mean) == np.float32([1 / 3, 0.1]))


def test_the_precision_of_the_networks_can_be_another(tmp_path):
    folder = sgm.save(tmp_path / "saved", sgm.VP(), AutoGuidance(model(), model(1)))
    guided = sgm.load(folder, precision="bfloat16", progress=False)[1]
    assert guided.model.network.precision == guided.weaker.network.precision == "bfloat16"


def test_arrays_have_readable_names(tmp_path):
    sgm.save(tmp_path / "saved", PROCESSES["learned"], model())
    tensors = map_tensors([tmp_path / "saved" / "model.safetensors"])
    assert {"sde.schedule.heights", "model.network.inlet.kernel", "model.network.blocks.0.first.bias"} <= set(tensors)
    assert np.all(tensors["model.units.mean"] == [3.0, -1.0])


@pytest.mark.slow
def test_a_folder_of_the_first_format_is_read():
    """It was saved by sgm 0.1.0; what its model estimated then is beside it."""
    sde, guided = sgm.load(FIXTURE, progress=False)
    expected = json.loads((FIXTURE.parent / "saved_format_1.json").read_text())
    cond = sgm.Condition(params=jnp.asarray(expected["params"]))
    x = jnp.asarray(expected["x"])
    np.testing.assert_allclose(sde.alpha(jnp.asarray([0.2, 0.7])), expected["alpha"], rtol=1e-5)
    np.testing.assert_allclose(guided.denoise(sde, 0.7, x, cond), expected["denoised"], rtol=1e-4)


def edited(tmp_path, change):
    folder = tmp_path / "edited"
    shutil.copytree(FIXTURE, folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_later_format_names_the_version_that_reads_it(tmp_path):
    folder = edited(tmp_path, lambda config: config.update(format=FORMAT + 1, version="9.3"))
    with pytest.raises(SavedError, match=r"in format 2, but this is sgm .*, which reads format 1; install sgm 9\.3 or"):
        sgm.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((lambda config, name=name: config.pop(name), f"it has no {name}") for name in ("format", "sde", "model")),
        (lambda config: config.update(format="1"), "format = '1', which is not a whole number"),
        (lambda config: config.update(format=True), "format = True, which is not a whole number"),
        (lambda config: config.update(model=None), "model = None, which is not a model"),
    ],
)
def test_a_damaged_description_is_named(tmp_path, change, message):
    with pytest.raises(SavedError, match=rf"load: .*/config.json: {message}; restore it\."):
        sgm.load(edited(tmp_path, change))


def nested(config, name, value):
    config["model"]["model"][name] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: nested(c, "network", {"type": "Popen", "args": "ls"}), r"model\.model\.network: there is no Popen"),
        (lambda c: nested(c, "network", {"type": "VP"}), r"model\.model\.network: there is no VP; there are"),
        (lambda c: nested(c, "units", {"type": "MLP"}), r"model\.model\.units: there is no MLP; there are Units"),
        (
            lambda c: nested(c, "network", {"type": "Net", "module": "antigravity"}),
            "Net is a class of the module 'antigravity'; import antigravity first",
        ),
        (lambda c: c["model"].update(temperature=2), "model: ClassifierFree has no option 'temperature'"),
        (lambda c: c["model"].update(weight={"type": "array"}), "model.weight = .*; pass the shape and the dtype"),
    ],
)
def test_a_description_names_classes_of_the_library_alone(tmp_path, change, message):
    with pytest.raises(ExperimentError, match=message):
        sgm.load(edited(tmp_path, change))


def test_missing_extra_and_misshapen_arrays_are_named(tmp_path):
    folder = edited(tmp_path, lambda config: None)
    path = folder / "model.safetensors"
    tensors = {name: np.array(tensor) for name, tensor in map_tensors([path]).items()}
    kernel = "model.model.network.inlet.kernel"
    for change, message in [
        ({kernel: None}, f"arrays missing: {kernel};"),
        ({"model.extra": np.zeros(2)}, "arrays of another model: model.extra;"),
        ({kernel: np.zeros((3, 3))}, rf"{kernel} has shape \(3, 3\), but by config.json \("),
    ]:
        changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        write_tensors(path, changed)
        with pytest.raises(SavedError, match=message):
            sgm.load(folder, progress=False)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TensorFileError, match="it is no safetensors file, or it is cut short"):
        sgm.load(folder, progress=False)
    path.unlink()
    with pytest.raises(TensorFileError, match=r"model.safetensors: there is no such file; download it again"):
        sgm.load(folder, progress=False)


class Foreign(eqx.Module):
    weight: jax.Array

    def __call__(self, level, u, cond=None, key=None):
        return self.weight * u


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sgm.ScoreModel(lambda level, u, cond, key=None: u, shape=(2,)), "model.network is a function, which"),
        (lambda: sgm.ScoreModel(Foreign(jnp.ones(2)), shape=(2,)), "model.network: there is no Foreign; there are"),
        (
            lambda: eqx.tree_at(lambda m: m.network.inlet.bias, model(), jnp.zeros(5)),
            r"the ScoreModel is another one: model\.network\.inlet\.bias: float32\(8,\), not float32\(5,\)",
        ),
        (
            lambda: eqx.tree_at(lambda m: m.network.embedding.null, model(), None),
            r"model\.network\.embedding\.null: float32\(8,\), not None",
        ),
    ],
)
def test_what_cannot_be_described_is_named(tmp_path, make, message):
    with pytest.raises(SavedError, match=message):
        sgm.save(tmp_path / "saved", sgm.VP(), make())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = sgm.save(tmp_path / "saved", sgm.VP(), model())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*arguments, **options):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("sgm.interop.saved.write_card", fail)
        for target in (folder, tmp_path / "new"):
            with pytest.raises(OSError, match="no space left"):
                sgm.save(target, sgm.VE(), model(1))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]
    (folder / ".git").mkdir()  # of a clone of the hub
    sgm.save(folder, sgm.VE(), model(1))
    assert (folder / ".git").is_dir() and eqx.tree_equal(sgm.load(folder, progress=False)[1], model(1))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(ValueError, match=r"save: .* holds something else already; pass a new folder, or an empty one"):
        sgm.save(tmp_path, sgm.VP(), model())


def test_options_of_other_folders_are_refused():
    with pytest.raises(ValueError, match=r"load: average = False, but .* is a saved model, which has no such choice"):
        sgm.load(FIXTURE, average=False)
    with pytest.raises(ValueError, match=r"load: variant = 'fp16', but .* is a saved model"):
        sgm.load(FIXTURE, variant="fp16")
    with pytest.raises(ValueError, match=r"load: revision = 'main', but .* is no model of the hub; leave it out"):
        sgm.load(FIXTURE, revision="main")
