"""Runs that begin from another, and a user's own classes on the command line."""

import dataclasses
import json
import sys

import equinox as eqx
import numpy as np
import pytest

import sgm
from sgm.cli import main
from sgm.runs import begin_from, read_experiment

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

SMALL = ("--training.steps", "6", "--training.batch-size", "8", "--training.preview-every", "6", "--drawing.n", "4")
NETWORK = ("--network.width", "16", "--network.depth", "1")


def command(folder, *arguments):
    return main([*SMALL, *arguments, "--run", str(folder), "--stages", "train"])


@pytest.fixture(scope="module", autouse=True)
def _no_previews():
    """What a training draws is looked at by test_cli.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgm.stages.Preview.__call__", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert command(folder, *NETWORK) == 0
    return folder


def test_a_run_begins_from_another(digits, tmp_path, capsys):
    network = (*NETWORK, "--network.dropout", "0.3")
    start = ("--from", str(digits), "--training.batch-size", "16", "--training.steps", "2", "--seed", "1")
    assert command(tmp_path / "on", *network, *start) == 0
    (_, before), (_, after) = sgm.load(digits), sgm.load(tmp_path / "on", average=False)
    moved = np.abs(np.asarray(before.network.inlet.kernel) - np.asarray(after.network.inlet.kernel)).max()
    assert 0 < moved < 0.01  # a step of Adam, where weights of another seed are 0.1 away
    assert read_experiment(tmp_path / "on").training.batch_size == 16
    assert [json.loads(line)["step"] for line in (tmp_path / "on/metrics.jsonl").read_text().splitlines()] == [1, 2]
    # The same command goes on, and needs the other run no more.
    capsys.readouterr()
    assert command(tmp_path / "on", *network, *start) == 0
    assert "nothing to train, since 2 of 2 steps are done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network.width", "24"), "another network, in network.width (16, not 24); pass the options"),
        (("--network.width", "16", "--prediction", "Noise"), "prediction (Karras, not Noise)"),
        (("--network.width", "16", "--data.label"), "in data.conditioning ("),
    ],
)
def test_a_run_does_not_begin_from_another_network(digits, tmp_path, capsys, options, message):
    arguments = ("--network.depth", "1", *options)
    assert command(tmp_path / "on", "--from", str(digits), *arguments) == 1
    error = capsys.readouterr().err
    assert f"sgm: begin_from: the run {digits} has " in error and message in error and error.count("\n") == 1


def test_a_run_does_not_begin_from_nothing(tmp_path, capsys):
    assert command(tmp_path / "on", "--from", str(tmp_path / "none")) == 1
    assert "there is no run (experiment.json is missing); pass the folder of a run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_begins_from_a_trained_schedule_and_the_statistics(tmp_path):
    options = (
        "--config",
        "grf",
        "--data.resolution",
        "4",
        "--network",
        "MLP",
        *NETWORK,
        "--sde.schedule",
        "LearnedLogSNR",
    )
    options += (
        "--loss.weighting",
        "LikelihoodWeighting",
        "--loss.times",
        "UniformTime",
        "--training.optimiser.warmup",
        "0",
    )
    assert command(tmp_path / "first", *options) == 0
    trained, model = sgm.load(tmp_path / "first")
    experiment = read_experiment(tmp_path / "first")
    sde, begun = begin_from(tmp_path / "first", experiment)
    np.testing.assert_array_equal(sde.schedule.ends, trained.schedule.ends)
    assert not np.array_equal(trained.schedule.ends, sgm.sde.LearnedLogSNR().ends)
    assert eqx.tree_equal(begun, model)
    fixed = dataclasses.replace(experiment, sde=sgm.VP())
    sde, begun = begin_from(tmp_path / "first", fixed)
    assert eqx.tree_equal(sde, sgm.VP()) and eqx.tree_equal(begun, model)


OWN_CLASSES = """
from dataclasses import dataclass
from functools import partial

import jax.random as jr
import sgm
from sgm.data import AbstractSimulated
from sgm.experiment import Experiment

@dataclass(frozen=True)
class Annulus(AbstractSimulated):
    \"\"\"Points near a circle.

    Arguments:
        radius: Radius of the circle.
    \"\"\"

    radius: float = 2.0
    shape = (2,)

    def simulate(self, key, n):
        x = jr.normal(key, (n, 2))
        return self.radius * x / (x ** 2).sum(axis=1, keepdims=True) ** 0.5 + 0.1 * x, {}

experiment = Experiment(Annulus(3.0), partial(sgm.nn.MLP, width=8, depth=1), sampler=sgm.DDIM(5))
"""


@pytest.mark.slow
def test_a_file_with_classes_of_ones_own_is_trained_and_loaded(tmp_path, monkeypatch, capsys):
    (tmp_path / "ring_experiment.py").write_text(OWN_CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    script, run = str(tmp_path / "ring_experiment.py"), tmp_path / "run"
    assert command(run, "--config", script, "--data.radius", "4") == 0
    written = json.loads((run / "experiment.json").read_text())
    assert written["data"]["radius"] == 4.0 and "Annulus" in written["data"]["type"]
    _, model = sgm.load(run)
    assert model.shape == (2,) and float(model.units.std.value.max()) == pytest.approx(4 / 2**0.5, rel=0.2)
    # The same command goes on, and another option does not.
    assert command(run, "--config", script, "--data.radius", "4") == 0
    assert command(run, "--config", script, "--data.radius", "5") == 1
    assert "another configuration, in data.radius;" in capsys.readouterr().err
    sys.modules["ring_experiment"].Annulus.__name__ = "_Annulus"  # No other test's flags may name it.
