"""Flags by the signatures of classes: every option of every class that an experiment can have."""

import dataclasses
import re
from functools import partial
from types import NoneType
from typing import Literal, get_args, get_origin

import diffrax
import pytest

import sgm
from sgm.evaluation import ChainBound, LogLikelihood, SlicedWasserstein
from sgm.experiment import Experiment
from sgm.flags import edited, from_flags
from sgm.likelihood import Hutchinson
from sgm.nn import MLP, UNet
from sgm.options import (
    MISSING,
    ExperimentError,
    bases,
    choices,
    explanations,
    is_writable,
    members,
    options,
    summary,
)
from sgm.serial import to_json
from sgm.training import Adam, AdamW, Loss, Training

pytestmark = pytest.mark.quick
DIGITS = Experiment(sgm.data.Digits(), partial(MLP, width=32, depth=2), sampler=sgm.EulerMaruyama(200))


def reachable(cls, found):
    if cls not in found:
        found.append(cls)
        for option in options(cls).values():
            for choice in choices(option.kind):
                reachable(choice, found)
    return found


CLASSES = [cls for cls in reachable(Experiment, []) if cls.__module__.partition(".")[0] != "tests"]
OURS = [cls for cls in CLASSES if cls.__module__.startswith("sgm.")]
# Options that cannot be written as text: functions, and what is made of them.
NO_FLAG = {"norm", "root_finder"}


def words(kind, avoid):
    """Words for an option, of another value than its default, and that value in JSON."""
    for part in members(kind):
        if get_origin(part) is Literal:
            value = next(name for name in get_args(part) if name != avoid)
            return [str(value)], value
        if get_origin(part) is tuple:
            pairs = [words(inner, None) for inner in get_args(part) if inner is not ...]
            return [word for pair in pairs for word in pair[0]], [value for _, value in pairs]
        if part is not NoneType:
            value = {float: 0.375, int: 7, str: "word", bool: True}[part]
            return [str(value)], value
    raise AssertionError(kind)


def simple(cls):
    """Whether a class needs no option."""
    return all(option.default is not MISSING for option in options(cls).values())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_option_has_a_flag(cls):
    arguments, expected = [], {}
    for name, option in options(cls).items():
        flag = "--" + name.replace("_", "-")
        if name in NO_FLAG:
            assert not cls.__module__.startswith("sgm.")
            continue
        assert is_writable(option.kind), name
        if kinds := bases(option.kind):
            known = [choice for choice in choices(option.kind) if simple(choice) and choice not in kinds]
            if known:
                arguments += [flag, known[-1].__name__]
                expected[name] = known[-1].__name__
        elif members(option.kind) == (bool,):
            arguments.append(flag.replace("--", "--no-", 1) if option.default else flag)
            expected[name] = not option.default
        else:
            given, expected[name] = words(option.kind, option.default)
            arguments += [flag, *given]
    written = edited(cls, arguments)
    for name, value in expected.items():
        found = written[name][0] if isinstance(written[name], list) and isinstance(value, str) else written[name]
        assert (found["type"] if isinstance(found, dict) else found) == value, name


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_every_option_is_explained(cls):
    meanings = explanations(cls)
    for name in options(cls):
        assert meanings.get(name, "").endswith((".", ")")) and meanings[name][0].isupper(), name
    assert summary(cls)


def test_a_flag_names_a_class_and_others_its_options():
    arguments = "--sde VP --sde.schedule Cosine --sde.schedule.ratio-max inf --prediction.sigma_data=0.7 --seed 3"
    experiment = from_flags(Experiment, arguments.split(), DIGITS)
    assert experiment.sde == sgm.VP(sgm.sde.Cosine(ratio_max=float("inf")))
    assert experiment.prediction == sgm.model.Karras(0.7) and experiment.seed == 3
    assert experiment.network.keywords["width"] == 32 and experiment.sampler == sgm.EulerMaruyama(200)


def test_a_class_that_is_named_anew_has_its_own_defaults():
    assert from_flags(Experiment, ["--sampler", "EDMHeun"], DIGITS).sampler == sgm.EDMHeun()
    assert from_flags(Experiment, ["--sampler", "EulerMaruyama"], DIGITS).sampler == sgm.EulerMaruyama(200)


def test_solvers_of_diffrax_can_be_named():
    arguments = (
        "--sampler ProbabilityFlow --sampler.solver Heun --sampler.stepping FixedSteps --sampler.stepping.steps 9"
    )
    sampler = from_flags(Experiment, arguments.split(), DIGITS).sampler
    assert sampler == sgm.ProbabilityFlow(diffrax.Heun(), sgm.solve.FixedSteps(9))


def test_metrics_are_listed_and_each_has_its_options():
    arguments = "--metrics LogLikelihood ChainBound LogLikelihood --metrics.ChainBound.steps 9 "
    arguments += "--metrics.LogLikelihood.tolerance 0.5 --metrics.LogLikelihood2.trace Hutchinson"
    metrics = from_flags(Experiment, arguments.split(), DIGITS).metrics
    assert metrics == (LogLikelihood(tolerance=0.5), ChainBound(steps=9), LogLikelihood(Hutchinson()))
    twice = dataclasses.replace(DIGITS, metrics=(LogLikelihood(), LogLikelihood(tolerance=0.1)))
    assert from_flags(Experiment, ["--metrics.LogLikelihood2.samples", "3"], twice).metrics == (
        LogLikelihood(),
        LogLikelihood(tolerance=0.1, samples=3),
    )
    assert from_flags(Experiment, ["--metrics", "SlicedWasserstein"], DIGITS).metrics == (SlicedWasserstein(),)
    assert from_flags(Experiment, ["--metrics"], DIGITS).metrics == ()


def test_an_experiment_needs_no_configuration():
    arguments = "--data DeadLeaves --data.resolution 16 --network UNet --network.width 8 --network.multipliers 1 2"
    experiment = from_flags(Experiment, arguments.split())
    assert experiment.data == sgm.data.DeadLeaves(resolution=16) and experiment.network.func is UNet
    assert experiment.network.keywords["multipliers"] == (1, 2)
    assert to_json(experiment)["training"] == to_json(Training())


@dataclasses.dataclass(frozen=True)
class Command(Experiment):
    """A command.

    Arguments:
        stages: Stages.
        from_: Folder.
    """

    stages: tuple[Literal["train", "sample"], ...] = ("train", "sample")
    from_: str | None = None


def test_a_command_has_more_options_than_an_experiment():
    command = from_flags(Command, ["--stages", "sample", "--from", "runs/a", "--seed", "5"], DIGITS)
    assert (command.stages, command.from_, command.seed) == (("sample",), "runs/a", 5)
    assert command.sampler == sgm.EulerMaruyama(200)


def test_flags_are_of_any_class():
    assert from_flags(Training, ["--steps", "100", "--optimiser", "AdamW"]).optimiser == AdamW()
    assert from_flags(Training, [], Training(optimiser=Adam(0.5))).optimiser == Adam(0.5)
    loss = from_flags(Loss, ["--objective", "Hybrid", "--objective.bound.variance", "Learned"])
    assert loss.objective == sgm.training.Hybrid(sgm.training.Bound(sgm.model.Learned()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--sde VPP",
            r"--sde: there is no VPP; did you mean VP\? There are AbsorbingChain, .*DiscreteChain, Rectified, SubVP, ",
        ),
        ("--sampler.grid Karas", "--sampler.grid: there is no Karas; did you mean KarrasGrid"),
        ("--sde VE VP", "--sde: it names 2 classes; pass one"),
        ("--network Popen", "--network: there is no Popen; there are ConvDense, DiT, MLP, .*UNet"),
    ],
)
def test_a_class_that_cannot_be_chosen_is_named(arguments, message):
    with pytest.raises(ExperimentError, match=message):
        from_flags(Experiment, arguments.split(), DIGITS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--sde.sigma-max 3", "--sde.sigma-max"),
        ("--sde.t0 small", "could not convert string to float: 'small'"),
        ("--training.steps 1.5", "--training.steps"),
    ],
)
def test_a_flag_that_there_is_not_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        from_flags(Experiment, arguments.split(), DIGITS)
    assert message in capsys.readouterr().err


def test_what_must_be_given_is_named(capsys):
    with pytest.raises(SystemExit):
        from_flags(Experiment, ["--network", "MLP"])
    assert "--data" in capsys.readouterr().err


def test_the_help_lists_what_can_be_chosen_and_explains_it(capsys):
    with pytest.raises(SystemExit):
        from_flags(Experiment, ["--sampler", "DPMSolverPP", "--help"], DIGITS, prog="sgm")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    # Classes of other tests may stand among them.
    processes = "AbsorbingChain,.*DiscreteChain,.*Rectified,SubVP,.*VE,VP"
    assert re.search(rf"--sde \{{{processes}\}} Process. \(default: VP\)", shown)
    assert "--sampler.order INT Order of the solver: 1, 2 or 3. (default: 2)" in shown
    assert "DPMSolverPP: The multistep DPM-Solver++ of the probability flow" in shown
