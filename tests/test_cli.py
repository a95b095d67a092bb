"""The command line, from training to evaluation, on small runs of shipped configurations."""

import dataclasses
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import PIL.Image
import pytest
from commands import ROUGH, STEPS, TINY, command, is_picture, metrics_of

import sgm
from sgm.cli import main
from sgm.data import Digits
from sgm.evaluation import LogLikelihood, read_columns
from sgm.experiment import Drawing, Evaluation, load_config
from sgm.likelihood import Exact, Hutchinson
from sgm.nn import MLP
from sgm.posterior import MMPS
from sgm.runs import read_experiment
from sgm.serial import to_json
from sgm.stages import Preview
from sgm.training.step import Recipe

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

DIGITS = (*TINY, *STEPS, *ROUGH, "--training.preview-every", "3", "--evaluation.n", "5")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert command(folder, *DIGITS) == 0
    return folder


def test_digits_leave_all_that_is_promised(digits):
    pictures = ("data", "process", "parameters", "gradients", "objective")
    pictures += ("samples", "samples_flow", "film_strip", "samples_step_0000003")
    pictures += ("evaluation_histogram", "evaluation_extremes")
    for name in pictures:
        assert is_picture(digits / f"{name}.png"), name
    assert len((digits / "metrics.jsonl").read_text().splitlines()) == 6
    assert json.loads((digits / "evaluation.json").read_text())["examples"] == 5
    rows = metrics_of(digits)
    assert rows["uniform_bits_per_dim"]["value"] == pytest.approx(np.log2(17))
    assert rows["gaussian_bits_per_dim"]["value"] == pytest.approx(2.95, abs=0.3)
    assert np.isfinite(rows["bits_per_dim"]["value"]) and np.isfinite(rows["bits_per_dim"]["stderr"])


def test_a_trained_run_is_filmed_without_its_options(digits):
    assert main(["--run", str(digits), "--stages", "film", "--drawing.film", "4"]) == 0
    with PIL.Image.open(digits / "film.gif") as film:
        assert film.n_frames == 3 + 5  # The levels of four steps; every other one of them as data dissolve.


def test_each_example_of_an_evaluation_is_stored(digits):
    columns, rows = read_columns(digits / "evaluation.parquet"), metrics_of(digits)
    assert set(columns) == {"index", "log_prob", "stderr", "nfe", "converged", "bits_per_dim"}
    assert columns["converged"].all()
    np.testing.assert_array_equal(columns["index"], np.arange(5))
    np.testing.assert_allclose(columns["bits_per_dim"], -columns["log_prob"] / 64 / np.log(2), rtol=1e-6)
    assert columns["bits_per_dim"].mean() == pytest.approx(rows["bits_per_dim"]["value"], rel=1e-5)
    assert columns["nfe"].mean() == pytest.approx(rows["evaluations"]["value"])
    assert not list(digits.glob("evaluation_????????"))


@pytest.mark.slow
def test_the_example_evaluates_a_run_by_library_calls(digits, monkeypatch, capsys):
    monkeypatch.setattr(Digits, "size", lambda self, split: 6)
    monkeypatch.setattr("sys.argv", ["evaluate.py", str(digits)])
    runpy.run_path(str(Path(__file__).parents[1] / "docs/examples/evaluate.py"))
    words = capsys.readouterr().out.split()
    assert words[1] == "±" and words[3:] == ["bits/dim", "of", "6", "images"]
    assert 3 < float(words[0]) < 8  # the model has seen six steps


@pytest.mark.slow
def test_the_example_of_posteriors_draws_film_strips(digits, tmp_path):
    example = runpy.run_path(str(Path(__file__).parents[1] / "docs/examples/digits_posterior.py"))
    example["main"](str(digits), tmp_path)
    assert is_picture(tmp_path / "digits_inpainting.png") and is_picture(tmp_path / "digits_denoising.png")


@pytest.mark.slow
def test_the_example_of_inverse_problems_recovers_digits(digits, tmp_path):
    example = runpy.run_path(str(Path(__file__).parents[1] / "docs/examples/inverse_problems.py"))
    method = MMPS(iterations=2, sampler=sgm.DDIM(3))
    coverage = example["main"](str(digits), tmp_path, draws=2, method=method)
    assert list(coverage) == ["half hidden", "blurred", "4x smaller"]
    assert min(coverage.values()) > 0.1  # of 95, with two draws of a model that has seen six steps
    assert is_picture(tmp_path / "digits_inverse_problems.png")


@pytest.mark.slow
def test_the_example_interpolates_between_digits(digits, tmp_path):
    example = runpy.run_path(str(Path(__file__).parents[1] / "docs/examples/digits_interpolation.py"))
    example["main"](str(digits), tmp_path)
    assert is_picture(tmp_path / "digits_interpolation.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("Probing", "--metrics.LogLikelihood.trace.strides", "2", "2", "1", "--metrics.LogLikelihood.samples", "2"),
        ("Hutchinson", "--metrics.LogLikelihood.trace.count", "2", "--metrics.LogLikelihood.accuracy", "2"),
    ],
)
def test_evaluations_have_their_options(digits, tmp_path, capsys, options):
    folder = tmp_path / "digits"
    shutil.copytree(digits, folder)
    assert command(folder, "--stages", "evaluate", "--metrics.LogLikelihood.trace", *options) == 0
    columns = read_columns(folder / "evaluation.parquet")
    assert np.all(np.isfinite(columns["log_prob"])) and "log P(levels)" in capsys.readouterr().out
    assert np.all(columns["stderr"] > 0) if "Probing" in options else np.all(columns["stderr"] <= 2)


@pytest.mark.slow
def test_a_run_is_evaluated_by_other_metrics(digits, tmp_path, capsys):
    folder = tmp_path / "digits"
    shutil.copytree(digits, folder)
    metrics = ("--metrics", "ContinuousBound", "SlicedWasserstein", "PowerSpectrum")
    options = ("--metrics.ContinuousBound.noise-levels", "4", "--metrics.SlicedWasserstein.directions", "8", *STEPS)
    assert command(folder, "--stages", "evaluate", *metrics, *options) == 0
    rows = metrics_of(folder)
    assert {"continuous_bits_per_dim", "sliced_wasserstein", "power_error"} <= set(rows) and "log_prob" not in rows
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in rows)


def test_a_run_without_metrics_has_an_empty_report(digits, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(digits, folder)
    assert command(folder, "--stages", "evaluate", "--metrics") == 0
    assert metrics_of(folder) == {} and list(read_columns(folder / "evaluation.parquet")) == ["index"]


def test_the_same_command_again_changes_nothing(digits, capsys):
    def contents():
        return (digits / "metrics.jsonl").read_text(), metrics_of(digits)

    before = contents()
    assert command(digits, *DIGITS) == 0
    assert contents() == before
    printed = capsys.readouterr().out
    assert "gaussian_bits_per_dim    2." in printed and "uniform_bits_per_dim     4.0875" in printed


def test_load_gives_averaged_weights_or_raw_ones(digits):
    sde, averaged = sgm.load(digits)
    _, raw = sgm.load(digits, average=False)
    assert isinstance(sde, sgm.VP) and averaged.shape == (8, 8, 1)
    difference = np.abs(np.asarray(averaged.network.inlet.kernel) - np.asarray(raw.network.inlet.kernel)).max()
    assert 0 < difference < 0.1


@pytest.mark.slow
def test_later_stages_need_no_repetition_of_the_options(digits):
    before = (digits / "samples.png").stat().st_mtime_ns
    assert main(["--run", str(digits), "--stages", "sample", "--sampler.steps", "3"]) == 0
    experiment = read_experiment(digits)
    assert experiment.network.func is MLP
    assert experiment.network.keywords["width"] == 16 and experiment.network.keywords["dropout"] == 0.15
    assert (experiment.sampler.steps, experiment.drawing.n, experiment.evaluation.n) == (5, 4, 5)  # as trained
    assert (digits / "samples.png").stat().st_mtime_ns > before


@pytest.mark.slow
def test_options_that_are_given_hold_though_they_are_the_defaults(digits, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(digits, folder)
    first = ["--run", str(folder), "--stages", "evaluate", "--metrics.LogLikelihood.tolerance", "0.1"]
    for trace in ("Hutchinson", "Exact"):
        assert main([*first, "--metrics.LogLikelihood.trace", trace]) == 0
    assert np.all(read_columns(folder / "evaluation.parquet")["stderr"] == 0)


def test_later_stages_are_of_the_same_data(digits, capsys):
    assert main(["--run", str(digits), "--stages", "sample", "--config", "moons"]) == 1
    assert "was begun with another configuration, in data;" in capsys.readouterr().err


def test_a_killed_command_goes_on(tmp_path, monkeypatch, digits):
    arguments = (*TINY, *STEPS, *ROUGH, "--stages", "train")
    prefetch = sgm.data.prefetch

    def killed(make, start, stop):
        for step, batch in enumerate(prefetch(make, start, stop)):
            if step == 4:  # One step after the checkpoint.
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr("sgm.training.loop.prefetch", killed)
    with pytest.raises(KeyboardInterrupt):
        command(tmp_path, *arguments)
    monkeypatch.setattr("sgm.training.loop.prefetch", prefetch)
    assert command(tmp_path, *arguments) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == (digits / "metrics.jsonl").read_text()
    (_, resumed), (_, whole) = sgm.load(tmp_path), sgm.load(digits)
    for first, second in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_command_that_is_asked_to_end_saves_and_says_so(tmp_path, monkeypatch, capsys):
    def ask(preview, step, metrics, state):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("sgm.stages.Preview.__call__", ask)
    assert command(tmp_path, "--config", "digits", *DIGITS) == 143
    assert "step 4 of 6 is saved" in (said := capsys.readouterr().err) and "The same command goes on." in said


def test_a_number_of_devices_that_does_not_fit_names_its_flag(tmp_path, capsys):
    for devices in ("2", "0"):
        assert command(tmp_path, "--config", "digits", *DIGITS, "--stages", "train", "--model-devices", devices) == 1
        said = capsys.readouterr().err
        assert f"--model-devices is {devices}, but there are {jax.device_count()} devices; pass a number" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_preview_gathers_the_average_alone(tmp_path, monkeypatch):
    """All else of a state may be too large for a device."""
    experiment = load_config("digits")
    sde, model = experiment.build()
    state = Recipe(sde, sgm.Loss(), optax.adam(1e-3), jax.random.key(0)).start(model)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0, "gradient_norm": 1.0}\n')
    gathered = []
    monkeypatch.setattr("sgm.stages.local", lambda tree: gathered.append(tree) or tree)
    monkeypatch.setattr("sgm.stages.draw", lambda sde, model, *_, n: np.zeros((n, *model.shape)))
    Preview(experiment, tmp_path)(experiment.training.steps, {}, state)
    assert is_picture(tmp_path / "parameters.png")
    ((_, average),) = gathered
    assert average is state.average


@pytest.mark.slow
def test_a_run_that_never_trained_takes_other_options(tmp_path, capsys, monkeypatch):
    arguments = ("--config", "digits", "--network.depth", "1", "--stages", "train")
    for empty in ("train", "test"):
        monkeypatch.setattr("sgm.data.Digits.size", lambda self, split, empty=empty: 0 if split == empty else 8)
        assert command(tmp_path, *arguments, "evaluate", "--network.width", "16") == 1
        assert f"the split '{empty}' is empty" in capsys.readouterr().err
    monkeypatch.undo()
    assert command(tmp_path, *arguments, "--network.width", "8") == 0


def test_a_metric_that_cannot_be_evaluated_is_refused_before_training(tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ("--config", "digits", "--metrics", "ChainBound")
    assert command(run, *arguments, "--stages", "train", "evaluate") == 1
    assert "ChainBound: the process is a VP; pass a DiscreteChain" in capsys.readouterr().err
    assert not run.exists()


def test_an_error_of_a_file_of_ones_own_comes_with_its_traceback(tmp_path, capsys):
    path = tmp_path / "broken_experiment.py"
    path.write_text("def fail():\n    raise ValueError('three is no width')\n\nfail()\n")
    assert main(["--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert "sgm: three is no width" in error and "broken_experiment.py" in error and "in fail" in error
    assert main(["--config", "nothing"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_that_is_a_file_is_named(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert main(["--run", str(tmp_path / "run")]) == 1
    assert "is a file; give the folder of a run" in capsys.readouterr().err


def test_a_run_keeps_its_configuration(digits, capsys):
    assert command(digits, "--network.width", "32", "--network.depth", "1") == 1
    error = capsys.readouterr().err
    assert "was begun with another configuration, in network.width;" in error and "--run" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "nothing"), "sgm: load_config: there is no configuration nothing; there are checkerboard,"),
        (("--config", "flowres"), "did you mean flowers or flowers_classes?"),
        (("--config", "./nothing.py"), "there is no file ./nothing.py; pass the path of a Python file"),
        (("--guidance", "ClassifierFree", "--network.width", "8"), "ClassifierFree: the model has learned no null"),
        (("--loss.condition-dropout", "0.1"), "but the data have no condition to drop; pass 0, or data with one"),
        (("--sampler", "DPMSolver"), "did you mean DPMSolverPP"),
        (("--prediction", "MeanCoefficient"), "MeanCoefficient"),
        (("--loss.objective", "Bound"), "Bound"),
        (("--loss.times", "ChainSteps"), "ChainSteps"),
        (("--sde.schedule", "Sigmoid"), "Sigmoid"),
        (("--stages", "evaluate"), "there is no run (experiment.json is missing); pass the folder of a run"),
        (("--distributed", "10.0.0.1:1234", "2"), "give nothing after it, or the address of the first process"),
        (("--distributed", "127.0.0.1", "2", "0"), "sgm: initialise: coordinator = '127.0.0.1'; pass the address of"),
        (("--distributed", "127.0.0.1:1234", "2", "2"), "initialise: index = 2 of processes = 2; pass each"),
        (("--model-devices", "2"), "--model-devices is 2, but there are 1 devices; pass"),
    ],
)
def test_wrong_commands_end_with_one_line(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--run", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sgm: ") and message in error and error.count("\n") == 1


def test_an_unknown_field_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--training.stepz", "3", "--run", str(tmp_path)])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "--training.stepz" in printed.err + printed.out


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"sgm {sgm.__version__}\n"


def test_the_help_may_be_read_in_part():
    program = "from sgm.cli import main; raise SystemExit(main(['--help']))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(5) == b"usage"
        process.stdout.close()
        assert process.stderr.read() == b""


def test_data_that_are_not_there_end_with_one_line(tmp_path, capsys, monkeypatch):

    def offline(*args, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr("sgm.data.prepare.HfApi.dataset_info", offline)
    monkeypatch.setattr("sgm.data.prepare.Cache", lambda **options: (_ for _ in ()).throw(ValueError("not cached")))
    assert main(["--config", "flowers", "--run", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "nelorth/oxford-flowers" in error and "connect to the internet" in error and "as path" in error
    assert error.count("\n") == 1
    # What the line advises works: the run has not begun yet, and so may have another source.
    assert main(["--config", "flowers", "--run", str(tmp_path), "--data.path", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert "there is no folder" in error and "as path" in error and error.count("\n") == 1


def test_load_names_what_is_missing(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no run \(experiment.json\), nothing that sgm.save has written and no mod"
    ):
        sgm.load(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        *((f"training.{option}", "0", f"{option.replace('-', '_')} >= 1") for option in ("steps", "batch-size")),
        *((f"{part}.n", "0", "n >= 1") for part in ("drawing", "evaluation")),
        ("training.optimiser.learning-rate", "0", "learning_rate > 0"),
        ("training.optimiser.clip", "0", "clip > 0"),
        ("metrics.LogLikelihood.tolerance", "0", "tolerance > 0"),
        ("training.average-decay", "1.5", "0 <= average_decay < 1"),
    ],
)
def test_options_have_their_range(tmp_path, capsys, option, value, remedy):
    assert main([f"--{option}", value, "--run", str(tmp_path)]) == 1
    error, name = capsys.readouterr().err, option.rpartition(".")[2].replace("-", "_")
    assert f"{name} = {float(value):g}" in error.replace("0.0", "0") and f"pass {remedy}" in error


def test_a_notebook_runs_the_experiment_of_the_command_line(digits):
    """The same objects, built in Python, are the same experiment as the one of the flags."""
    read = read_experiment(digits)
    experiment = load_config("digits")
    experiment = dataclasses.replace(
        experiment,
        network=partial(MLP, **{**experiment.network.keywords, "width": 16, "depth": 1}),
        sampler=sgm.EulerMaruyama(5),
        training=dataclasses.replace(experiment.training, steps=6, batch_size=8, checkpoint_every=3, preview_every=3),
        drawing=Drawing(4, 3, 1e-2),
        metrics=(LogLikelihood(Exact(), tolerance=1e-2),),
        evaluation=Evaluation(n=5, batch_size=3),
    )
    assert to_json(read) == to_json(experiment)
    assert to_json(read) != to_json(dataclasses.replace(experiment, metrics=(LogLikelihood(Hutchinson()),)))
