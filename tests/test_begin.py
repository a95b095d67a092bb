"""What `main.py` checks before a run, and runs that begin from another."""

import dataclasses
import json
import sys
import types

import equinox as eqx
import numpy as np
import pytest

import sgm
from main import main
from sgm.build import begin_from, check_readable
from sgm.config import Config, ConfigError, MLPConfig, SDEConfig, read_config
from sgm.data import Digits, Images

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

CONFIG = Config(data=Digits(), network=MLPConfig())
SMALL = ("--train.steps", "6", "--train.batch-size", "8", "--train.sample-every", "6", "--sample.n", "4")


def command(folder, *arguments):
    return main([*SMALL, *arguments, "--run", str(folder), "--stages", "train"])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert command(folder, "--network.width", "16", "--network.depth", "1") == 0
    return folder


def test_a_run_begins_from_another(digits, tmp_path, capsys):
    network = ("--network.width", "16", "--network.depth", "1", "--network.dropout", "0.3")
    start = ("--from", str(digits), "--train.batch-size", "16", "--train.steps", "2", "--seed", "1")
    assert command(tmp_path / "on", *network, *start) == 0
    (_, before), (_, after) = sgm.load(digits), sgm.load(tmp_path / "on", average=False)
    moved = np.abs(np.asarray(before.network.inlet.kernel) - np.asarray(after.network.inlet.kernel)).max()
    assert 0 < moved < 0.01  # a step of Adam, where weights of another seed are 0.1 away
    assert read_config(tmp_path / "on").train.batch_size == 16
    assert [json.loads(line)["step"] for line in (tmp_path / "on/metrics.jsonl").read_text().splitlines()] == [1, 2]
    # The same command goes on, and needs the other run no more; without its options it does not.
    assert command(tmp_path / "on", *network, *start) == 0
    assert "nothing to train, since 2 of 2 steps are done" in capsys.readouterr().out
    assert command(tmp_path / "on", *network, *start[2:]) == 1
    assert "was begun with another configuration, in from;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network.width", "24"), "that run has another network, in network.width (16, not 24); pass the options"),
        (("--network.width", "16", "--prediction", "Noise"), "prediction (Karras, not Noise), sigma_data ("),
        (("--network.width", "16", "--data.label"), "in data.conditions ({}, not {'classes': 10});"),
        (("--network.width", "16", "--variance", "Learned"), "in variance (fixed, not Learned);"),
    ],
)
def test_a_run_does_not_begin_from_another_network(digits, tmp_path, capsys, options, message):
    arguments = ("--network.depth", "1", *options)
    assert command(tmp_path / "on", "--from", str(digits), *arguments) == 1
    error = capsys.readouterr().err
    assert f"main.py: --from {digits}: " in error and message in error and error.count("\n") == 1


def test_a_run_does_not_begin_from_nothing(tmp_path, capsys):
    assert command(tmp_path / "on", "--from", str(tmp_path / "none")) == 1
    assert "there is no run (config.json is missing); pass the folder of a run" in capsys.readouterr().err


def test_a_run_begins_from_a_trained_schedule_and_the_statistics(tmp_path):
    options = ("--network.width", "8", "--network.multipliers", "1", "--data.resolution", "4")
    options += ("--config", "grf", "--sde.schedule", "LearnedLogSNR", "--train.weighting", "Likelihood")
    options += ("--train.times", "UniformTime", "--train.warmup", "0")
    assert command(tmp_path / "first", *options) == 0
    sde, model = sgm.load(tmp_path / "first")
    state = begin_from(tmp_path / "first", read_config(tmp_path / "first"))
    np.testing.assert_array_equal(state.process.schedule.ends, sde.schedule.ends)
    assert not np.array_equal(sde.schedule.ends, sgm.sde.LearnedLogSNR().ends)
    assert eqx.tree_equal(state.model, model) and eqx.tree_equal(state.average, model) and int(state.step) == 0
    fixed = dataclasses.replace(read_config(tmp_path / "first"), sde=SDEConfig())
    assert eqx.tree_equal(begin_from(tmp_path / "first", fixed).model, model)


OWN_DATA = """
from dataclasses import dataclass
from sgm.config import Config, MLPConfig
from sgm.data import Moons

@dataclass(frozen=True)
class Maps(Moons):
    pass

config = Config(data=Maps(), network=MLPConfig(8, 1))
"""


def test_a_data_set_that_could_not_be_read_back_is_refused_before_the_first_step(tmp_path, capsys, monkeypatch):
    (tmp_path / "maps.py").write_text(OWN_DATA)
    monkeypatch.setattr("main.CONFIGS", tmp_path)
    monkeypatch.setitem(sys.modules, "maps", types.ModuleType("maps"))  # where dataclasses look types up
    assert command(tmp_path / "run", "--config", "maps") == 1
    error = capsys.readouterr().err
    assert "main.py: data: the class Maps cannot be read back from config.json" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: dict(data=Images("name", resolution=8, classes=[3])), r"data\.classes = \[3\]: it cannot be read"),
        (lambda: dict(sigma_data=np.float32(0.5)), r"sigma_data = .*0\.5.*: it cannot be read back .*; pass a number"),
        (lambda: dict(network=types.SimpleNamespace()), r"network: the class SimpleNamespace cannot be read back"),
    ],
)
@pytest.mark.usefixtures("types_unchecked")
def test_options_that_could_not_be_read_back_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        check_readable(dataclasses.replace(CONFIG, **config()))
    check_readable(CONFIG)
