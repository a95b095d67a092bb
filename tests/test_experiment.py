"""Experiments: what they build, in what they differ, and where they are loaded from."""

import dataclasses
import sys
from functools import partial

import jax
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.experiment import Drawing, Evaluation, Experiment, config_names, differences, load_config
from sgm.flags import from_flags
from sgm.model import Karras, MeanCoefficient, Noise, WithVariance
from sgm.nn import MLP
from sgm.options import ExperimentError
from sgm.training import AdamW, Loss, Training

pytestmark = pytest.mark.quick

PLAIN = Experiment(sgm.data.Moons(), partial(MLP, width=8, depth=1))


def test_it_builds_the_process_and_the_model():
    sde, model = PLAIN.build()
    assert sde is PLAIN.sde and model.shape == (2,) and model.prediction == Karras()
    assert model.network.width == 8 and not model.network.conditioning.null
    np.testing.assert_array_equal(model.units.mean.value, PLAIN.data.units.mean.value)


def test_a_skeleton_has_the_shapes_and_needs_no_data():
    class Unread(sgm.data.Moons):
        def rows(self, split, start, stop):
            raise AssertionError("the data are read")

    for data in (sgm.data.Moons(), sgm.data.GaussianField(resolution=4), sgm.data.Digits(label=True)):
        experiment = dataclasses.replace(PLAIN, data=data)
        models = experiment.build()[1], experiment.skeleton(experiment.records)[1]
        built, skeleton = (jax.tree.leaves(model) for model in models)
        for leaf, shape in zip(built, skeleton, strict=True):
            assert np.shape(leaf) == np.shape(shape) and getattr(leaf, "dtype", leaf) == getattr(shape, "dtype", shape)
    unread = dataclasses.replace(PLAIN, data=Unread())
    unread.skeleton(unread.records)


@pytest.mark.parametrize("name", config_names())
def test_a_shipped_configuration_can_be_built(name):
    experiment = load_config(name)
    sde, model = experiment.skeleton(experiment.records)
    assert sde.t0 < sde.t1 and model.shape == experiment.data.shape


def test_the_network_has_the_outputs_and_the_condition():
    experiment = dataclasses.replace(
        PLAIN, data=sgm.data.Digits(label=True), prediction=WithVariance(Noise()), loss=Loss(condition_dropout=0.1)
    )
    _, model = experiment.build()
    assert model.network.outputs == 2 and model.conditioning == sgm.nn.Conditioning(classes=10, null=True)


def test_a_condition_that_there_is_not_cannot_be_dropped():
    with pytest.raises(ExperimentError, match=r"loss.condition_dropout = 0.1, but the data have no condition to drop"):
        dataclasses.replace(PLAIN, loss=Loss(condition_dropout=0.1)).build()


def test_a_prediction_is_of_the_chain_of_the_process():
    prediction = WithVariance(MeanCoefficient(sgm.DiscreteChain(sgm.sde.LinearBetas(9))))
    for sde in (sgm.VP(), sgm.DiscreteChain(sgm.sde.LinearBetas(8))):
        with pytest.raises(ValueError, match=r"MeanCoefficient: its output is of .* but the process is another"):
            dataclasses.replace(PLAIN, sde=sde, prediction=prediction).build()


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": MLP}, r"network is the class MLP; pass an instance such as functools.partial\(sgm.nn.MLP, width"),
        ({"network": partial(MLP, (2,))}, r"network is functools.partial\(.*\); pass .* with its options by name"),
        ({"network": partial(dict)}, "pass a functools.partial of a subclass of sgm.nn.AbstractNetwork"),
        ({"sde": sgm.VP}, "sde is the class VP; pass an instance"),
        ({"metrics": sgm.evaluation.LogLikelihood()}, "metrics is a LogLikelihood; pass an instance such as "),
        ({"metrics": (sgm.evaluation.LogLikelihood,)}, "metrics is the class LogLikelihood; pass an instance such as "),
        ({"loss": sgm.Loss}, "loss is the class Loss; pass an instance such as "),
        ({"dequantisation": None}, "dequantisation = None; pass an instance such as "),
    ],
)
def test_parts_that_are_none_are_named(changes, message):
    with pytest.raises((TypeError, ExperimentError), match=f"Experiment: .*{message}"):
        dataclasses.replace(PLAIN, **changes)


def test_no_two_purposes_share_a_key():
    keys = [experiment.key(name) for experiment in (PLAIN, dataclasses.replace(PLAIN, seed=1)) for name in ("a", "b")]
    assert len({tuple(np.asarray(jr.key_data(key))) for key in keys}) == 4
    assert PLAIN.key("a") == PLAIN.key("a")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"sde": sgm.VE()}, {"sde"}),
        ({"sde": sgm.VP(t0=1e-4)}, {"sde.t0"}),
        ({"network": partial(MLP, width=8, depth=2, remat=True)}, {"network.depth"}),
        ({"loss": Loss(condition_dropout=0.5)}, {"loss.condition_dropout"}),
        (
            {"training": Training(steps=9, log_every=1, accumulate=2, optimiser=AdamW())},
            {"training.steps", "training.optimiser"},
        ),
        ({"sampler": sgm.DDIM(), "drawing": Drawing(3), "metrics": (), "evaluation": Evaluation(n=3)}, set()),
        ({"seed": 1, "data": sgm.data.SwissRoll()}, {"seed", "data"}),
    ],
)
def test_experiments_differ_in_what_changes_the_trained_model(changes, expected):
    other = dataclasses.replace(PLAIN, **changes)
    assert differences(PLAIN, other) == differences(other, PLAIN) == expected


def test_data_may_move():
    here, there = (dataclasses.replace(PLAIN, data=sgm.data.Images(None, path)) for path in ("here", "there"))
    assert differences(here, there) == set()


def test_configurations_are_loaded_by_name():
    assert "digits" in config_names()
    assert load_config("digits").prediction == Karras(0.7)
    with pytest.raises(ExperimentError, match=r"there is no configuration digit; did you mean digits or .* There are"):
        load_config("digit")


FILE = """
import dataclasses
from functools import partial
from helper import NUMBER
from sgm.data import SwissRoll
from sgm.experiment import Experiment
from sgm.nn import MLP

@dataclasses.dataclass(frozen=True)
class Rolls(SwissRoll):
    \"\"\"Rolls.\"\"\"
    turns: int = NUMBER

experiment = Experiment(Rolls(), partial(MLP, width=16))
"""


def test_a_file_of_the_users_own_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "helper.py").write_text("NUMBER = 3")
    (tmp_path / "my_rolls.py").write_text(FILE)
    experiment = load_config(str(tmp_path / "my_rolls.py"))
    assert experiment.data.turns == 3
    arguments = ["--data.turns", "5"]
    assert from_flags(Experiment, arguments, experiment).data == sys.modules["my_rolls"].Rolls(5)
    again = load_config(str(tmp_path / "my_rolls.py"))
    assert type(again.data) is sys.modules["my_rolls"].Rolls


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.py", None, "load_config: there is no file .*none.py; pass the path of a Python file"),
        ("json.py", "", "load_config: json is the name of another module; give .*json.py another name"),
        ("rolls.v2.py", "", "load_config: rolls.v2 is no name of a module; give .*rolls.v2.py a name without a dot"),
        ("empty_experiment.py", "experiment = 3", "defines no `experiment`; add experiment = Experiment"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(name, text, message, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ExperimentError, match=message):
        load_config(str(tmp_path / name))
