import json
import math
import runpy
import shutil
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import PIL.Image
import pytest

import sgm
from main import main
from sgm.config import (
    Config,
    ConfigError,
    MLPConfig,
    SDEConfig,
    TrainConfig,
    differences,
    from_json,
    read_config,
    to_json,
    write_config,
)
from sgm.data import Checkerboard, Coins, Digits, Images
from sgm.evaluation.evaluate import gaussian_bits_per_dim, read_columns
from sgm.training.checkpoint import CheckpointError

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

SMALL = (
    *("--train.steps", "6", "--train.batch-size", "8", "--train.checkpoint-every", "3", "--train.sample-every", "3"),
    *("--sample.n", "4", "--sample.steps", "5", "--sample.frames", "3"),
    *("--evaluate.n", "5", "--evaluate.batch-size", "3", "--evaluate.tolerance", "1e-2"),
)


def command(folder, *arguments):
    return main([*arguments, "--run", str(folder), *SMALL])


def is_picture(path):
    pixels = np.asarray(PIL.Image.open(path).convert("L"))
    return pixels.size > 10_000 and pixels.std() > 1


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert command(folder, "--network.width", "16", "--network.depth", "1") == 0
    return folder


def test_digits_leave_all_that_is_promised(digits):
    pictures = ("data", "process", "parameters", "gradients", "objective")
    pictures += ("samples", "samples_flow", "film_strip", "samples_step_0000003")
    pictures += ("evaluation_histogram", "evaluation_extremes")
    for name in pictures:
        assert is_picture(digits / f"{name}.png"), name
    assert len((digits / "metrics.jsonl").read_text().splitlines()) == 6
    report = json.loads((digits / "evaluation.json").read_text())
    assert report["examples"] == 5 and report["unfinished"] == 0
    assert report["uniform"] == pytest.approx(np.log2(17))
    assert report["gaussian"][0] == pytest.approx(2.95, abs=0.3)
    assert np.isfinite(report["bits_per_dim"]).all()


def test_each_example_of_an_evaluation_is_stored(digits):
    columns, report = read_columns(digits / "evaluation.parquet"), json.loads((digits / "evaluation.json").read_text())
    assert set(columns) == {"index", "log_prob", "stderr", "nfe", "converged", "bits_per_dim"}
    assert columns["converged"].all()
    np.testing.assert_array_equal(columns["index"], np.arange(5))
    np.testing.assert_allclose(columns["bits_per_dim"], -columns["log_prob"] / 64 / np.log(2), rtol=1e-6)
    assert columns["bits_per_dim"].mean() == pytest.approx(report["bits_per_dim"][0], rel=1e-5)
    assert columns["nfe"].mean() == pytest.approx(report["evaluations"])
    assert not list(digits.glob("evaluation_????????"))


def test_the_example_evaluates_a_run_by_library_calls(digits, monkeypatch, capsys):
    monkeypatch.setattr(Digits, "size", lambda self, split: 6)
    monkeypatch.setattr("sys.argv", ["evaluate.py", str(digits)])
    runpy.run_path(str(Path(__file__).parents[1] / "docs/examples/evaluate.py"))
    words = capsys.readouterr().out.split()
    assert words[1] == "±" and words[3:] == ["bits/dim", "of", "6", "images"]
    assert 3 < float(words[0]) < 8  # the model has seen six steps


def test_the_example_of_posteriors_draws_film_strips(digits, tmp_path):
    example = runpy.run_path(str(Path(__file__).parents[1] / "docs/examples/digits_posterior.py"))
    example["main"](str(digits), tmp_path)
    assert is_picture(tmp_path / "digits_inpainting.png") and is_picture(tmp_path / "digits_denoising.png")


@pytest.mark.parametrize(
    "options", [("probing", "--evaluate.samples", "2"), ("hutchinson", "--evaluate.accuracy", "2")]
)
def test_evaluations_have_their_options(digits, tmp_path, capsys, options):
    folder = tmp_path / "digits"
    shutil.copytree(digits, folder)
    assert command(folder, "--stages", "evaluate", "--evaluate.probes", "2", "--evaluate.trace", *options) == 0
    columns = read_columns(folder / "evaluation.parquet")
    assert np.all(np.isfinite(columns["log_prob"])) and "log P(levels)" in capsys.readouterr().out
    assert np.all(columns["stderr"] > 0) if "probing" in options else np.all(columns["stderr"] <= 2)


def test_the_same_command_again_changes_nothing(digits, capsys):
    def contents():
        report = json.loads((digits / "evaluation.json").read_text())
        return (digits / "metrics.jsonl").read_text(), {name: report[name] for name in report if name != "seconds"}

    before = contents()
    assert command(digits, "--network.width", "16", "--network.depth", "1") == 0
    assert contents() == before
    printed = capsys.readouterr().out
    assert "Gaussian bits/dim   2." in printed and "uniform bits/dim    4.0875" in printed


def test_load_gives_averaged_weights_or_raw_ones(digits):
    sde, averaged = sgm.load(digits)
    _, raw = sgm.load(digits, average=False)
    assert isinstance(sde, sgm.VP) and averaged.shape == (8, 8, 1)
    difference = np.abs(np.asarray(averaged.network.inlet.kernel) - np.asarray(raw.network.inlet.kernel)).max()
    assert 0 < difference < 0.1


def test_later_stages_need_no_repetition_of_the_options(digits):
    assert main(["--run", str(digits), "--stages", "sample", "--sample.steps", "3"]) == 0
    config = read_config(digits)
    assert config.network == MLPConfig(16, 1, dropout=0.15)
    assert (config.sample.steps, config.sample.n, config.evaluate.n) == (5, 4, 5)  # as trained
    assert PIL.Image.open(digits / "samples.png").size[0] > 0


def test_options_that_are_given_hold_though_they_are_the_defaults(digits, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(digits, folder)
    first = ["--run", str(folder), "--stages", "evaluate", "--evaluate.trace"]
    assert main([*first, "hutchinson", "--evaluate.tolerance", "1e-2"]) == 0
    assert main([*first, "exact", "--evaluate.tolerance", "1e-5"]) == 0
    assert np.all(read_columns(folder / "evaluation.parquet")["stderr"] == 0)
    report = json.loads((folder / "evaluation.json").read_text())
    assert (report["trace"], report["tolerance"], report["examples"]) == ("exact", 1e-5, 5)


def test_later_stages_are_of_the_same_data(digits, capsys):
    assert main(["--run", str(digits), "--stages", "sample", "--config", "moons"]) == 1
    assert "was begun with another configuration, in data.type" in capsys.readouterr().err


def test_a_killed_command_goes_on(tmp_path, monkeypatch, digits):
    import main as command_line

    arguments = ("--network.width", "16", "--network.depth", "1", "--stages", "train")
    prefetch = command_line.prefetch

    def killed(make, start, stop):
        for step, batch in enumerate(prefetch(make, start, stop)):
            if step == 4:  # One step after the checkpoint.
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(command_line, "prefetch", killed)
    with pytest.raises(KeyboardInterrupt):
        command(tmp_path, *arguments)
    monkeypatch.setattr(command_line, "prefetch", prefetch)
    assert command(tmp_path, *arguments) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == (digits / "metrics.jsonl").read_text()
    (_, resumed), (_, whole) = sgm.load(tmp_path), sgm.load(digits)
    for first, second in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_run_that_never_trained_takes_other_options(tmp_path, capsys, monkeypatch):
    arguments = ("--config", "digits", "--network.depth", "1", "--stages", "train")
    monkeypatch.setattr("sgm.data.Digits.size", lambda self, split: 0)
    assert command(tmp_path, *arguments, "--network.width", "16") == 1
    assert "the split 'test' is empty" in capsys.readouterr().err
    monkeypatch.undo()
    assert command(tmp_path, *arguments, "--network.width", "8") == 0


def test_a_run_keeps_its_configuration(digits, capsys):
    assert command(digits, "--network.width", "32", "--network.depth", "1") == 1
    error = capsys.readouterr().err
    assert "was begun with another configuration, in network.width;" in error and "--run" in error


def test_a_plane_gets_its_own_pictures(tmp_path, capsys):
    assert command(tmp_path / "moons", "--config", "moons", "--network.width", "16", "--network.depth", "1") == 0
    for name in ("data", "process", "objective", "samples", "trajectories", "density"):
        assert is_picture(tmp_path / "moons" / f"{name}.png"), name
    assert "entropy of the data -2.3939" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "stages", "manner", "pictures"),
    [
        ((5,), "train sample", "a corner plot of the columns; paths are left out", {"data", "samples"}),
        (
            (12, 2),
            "train sample evaluate",
            "lines, a colour for each of the channels",
            {"data", "samples", "samples_flow", "film_strip", "evaluation_extremes"},
        ),
        ((4, 6, 5), "train", "the channels side by side, in grey", {"data", "samples_step_0000003"}),
        ((2, 2, 2, 1), "train sample evaluate", "none, for examples of shape (2, 2, 2, 1)", set()),
    ],
)
def test_data_of_any_shape_are_drawn_or_left_out(tmp_path, capsys, monkeypatch, shape, stages, manner, pictures):
    def take(self, split, index):
        return np.random.default_rng(0).normal(size=(len(index), *shape)).astype(np.float32), {}

    monkeypatch.setattr(Digits, "shape", property(lambda self: shape))
    monkeypatch.setattr(Digits, "levels", None)
    monkeypatch.setattr(Digits, "take", take)
    monkeypatch.setattr(Digits, "size", lambda self, split: 16)
    assert command(tmp_path, "--network.width", "16", "--network.depth", "1", "--stages", *stages.split()) == 0
    assert f"pictures of examples: {manner}" in capsys.readouterr().out
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures <= drawn and all(is_picture(tmp_path / f"{name}.png") for name in drawn)
    if not pictures:
        assert not drawn & {"data", "samples", "samples_flow", "film_strip", "evaluation_extremes"}


def test_images_of_any_aspect_channels_and_depth(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 14, 4), np.uint8)
    for place, pixels in enumerate(noise):
        (tmp_path / "images").mkdir(exist_ok=True)
        PIL.Image.fromarray(pixels).save(tmp_path / "images" / f"{place}.png")
    small = ("--network.width", "4", "--network.multipliers", "1", "--network.blocks", "1")
    small += ("--data.levels", "65536", "--stages", "train", "evaluate")
    options = ("--data.path", str(tmp_path / "images"), "--data.resolution", "8", "12", "--data.channels", "4")
    run = tmp_path / "run"
    assert (
        command(run, "--config", "flowers", *options, "--data.levels", "65536", *small, "--stages", "train", "evaluate")
        == 0
    )
    assert "pictures of examples: RGB and alpha, on white" in capsys.readouterr().out
    for name in ("data", "samples_step_0000003", "evaluation_extremes"):
        assert is_picture(run / f"{name}.png"), name
    report = json.loads((run / "evaluation.json").read_text())
    assert report["uniform"] == 16 and np.isfinite(report["bits_per_dim"][0])
    assert read_config(run).data.shape == (8, 12, 4)


def test_a_chain_is_trained_on_its_bound(tmp_path, capsys):
    folder, network = tmp_path / "roll", ("--network.dense", "1", "--network.dense-width", "16")
    assert command(folder, "--config", "sohl_swiss_roll", "--sde.steps", "20", *network) == 0
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["bound"][0] < 0 and "the chain's bound" in capsys.readouterr().out
    expected = (report["bound"][0] / 2 + 0.5 * np.log(2 * np.pi * np.e)) / np.log(2)
    assert report["bits_over_gaussian"][0] == pytest.approx(expected, rel=1e-4)
    sampling = ("--run", str(folder), "--stages", "sample", "--config", "sohl_swiss_roll", "--sample.steps", "5")
    assert main([*sampling, "--sample.method", "DDIM", "--sample.eta", "0.5"]) == 0
    assert is_picture(folder / "samples.png")
    assert main([*sampling, "--sample.eta", "0.5"]) == 1
    assert "main.py: sample: Ancestral has no option 'eta'; it has steps, variance, grid" in capsys.readouterr().err


def test_bits_over_a_gaussian_are_of_data_of_variance_one(tmp_path, capsys):
    chain = ("--sde.process", "DiscreteChain", "--sde.steps", "20", "--stages", "train", "evaluate")
    assert command(tmp_path / "digits", "--network.width", "16", "--network.depth", "1", *chain) == 0
    assert "bound" in (report := json.loads((tmp_path / "digits/evaluation.json").read_text()))
    assert "bits_over_gaussian" not in report and "over a Gaussian" not in capsys.readouterr().out


def test_coins_are_compared_with_their_entropy(tmp_path, capsys):
    options = ("--network.width", "16", "--network.depth", "1", "--stages", "train", "evaluate")
    assert command(tmp_path / "coins", "--config", "coins", "--evaluate.samples", "1", *options) == 0
    report = json.loads((tmp_path / "coins/evaluation.json").read_text())
    assert report["entropy"] == pytest.approx(Coins().entropy)
    assert report["entropy_bits_per_dim"] == pytest.approx(np.log2(math.comb(48, 36)) / 48)
    assert "entropy, bits/dim   0.7504" in capsys.readouterr().out


def test_images_conditioned_on_classes(tmp_path):
    arguments = ("--config", "digits", "--data.label", "--network.width", "16", "--stages", "train", "sample")
    assert command(tmp_path / "classes", *arguments) == 0
    _, model = sgm.load(tmp_path / "classes")
    assert model.network.embedding.labels.shape[0] == 10


@pytest.mark.parametrize("name", [pytest.param("grf", marks=pytest.mark.slow), "grf_map"])
def test_fields_are_conditioned_and_compared_with_the_truth(name, tmp_path, capsys):
    arguments = ("--config", name, "--data.resolution", "4", "--network.width", "8", "--network.multipliers", "1")
    assert command(tmp_path / name, *arguments, "--train.condition-dropout", "0.2", "--train.accumulate", "2") == 0
    assert "of the same examples given their conditions" in capsys.readouterr().out
    assert is_picture(tmp_path / name / "samples.png")
    assert (tmp_path / name / "posteriors.png").exists() == (name == "grf_map")
    report = json.loads((tmp_path / name / "evaluation.json").read_text())
    data = read_config(tmp_path / name).data
    x, fields = data.rows("test", 0, 5)
    exact = [float(data.conditional_log_prob(*jax.tree.map(jax.numpy.asarray, row))) for row in rows(x, fields)]
    assert report["exact"][0] == pytest.approx(np.mean(exact), rel=1e-4)
    assert report["log_prob"][0] < report["exact"][0]
    _, model = sgm.load(tmp_path / name)
    assert model.conditioning.null
    if name == "grf":
        np.testing.assert_array_equal(model.network.embedding.standardisation.mean.value, data.statistics()[0])


def rows(x, fields):
    return [(x[i], {name: values[i] for name, values in fields.items()}) for i in range(len(x))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "nothing"), "main.py: --config nothing: there is no configs/nothing.py; there are checkerboard,"),
        (
            ("--config", "flowres"),
            "there is no configs/flowres.py; did you mean flowers or flowers_classes? There are checkerboard, cifar10,",
        ),
        (("--sde.process", "VE", "--sde.beta-max", "3"), "main.py: sde: VE has no option 'schedule'; it has sigma_min"),
        (("--train.condition-dropout", "0.1"), "but the data have no condition to drop; pass 0, or give the data one"),
        (
            ("--prediction", "MeanCoefficient"),
            "main.py: prediction: it is of a chain's own steps",
        ),
        (("--train.objective", "Bound"), "main.py: train.objective: it is of a chain's own steps"),
        (("--train.times", "ChainSteps"), "main.py: train.times: it is of a chain's own steps"),
        (
            ("--sde.schedule", "Sigmoid"),
            "main.py: sde.schedule = Sigmoid: it is not of VP; pass Linear, Cosine, LearnedLogSNR.",
        ),
        (("--stages", "evaluate"), "the run has no checkpoint yet; train it first"),
    ],
)
def test_wrong_commands_end_with_one_line(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--run", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_unknown_field_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--train.stepz", "3", "--run", str(tmp_path)])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "--train.stepz" in printed.err + printed.out


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
    with pytest.raises(CheckpointError, match=r"load: there is no run in .* pass the folder of a run"):
        sgm.load(tmp_path)


CONFIG = Config(data=Digits(), network=MLPConfig())


@pytest.mark.parametrize("data", [Digits(label=True), Checkerboard(), Images("hub/name", resolution=(8, 4), classes=3)])
def test_configurations_survive_the_disk(tmp_path, data):
    config = Config(data=data, network=MLPConfig(8), sde=SDEConfig("VE", sigma_max=50.0), stages=("train",))
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


def test_nothing_on_disk_can_run_code(tmp_path):
    with pytest.raises(ConfigError, match="there is no 'Popen'; known are"):
        from_json({"type": "Popen", "args": ["ls"]})
    with pytest.raises(ConfigError, match=r"MLPConfig has no option 'widht'; it has .*width, depth"):
        from_json({"type": "MLPConfig", "widht": 3})
    (tmp_path / "config.json").write_text('{"type": "Config", ')
    with pytest.raises(ConfigError, match="it is not JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_json(MLPConfig())))
    with pytest.raises(ConfigError, match="it describes a MLPConfig"):
        read_config(tmp_path)


def test_differences_are_what_changes_the_model():
    import dataclasses

    other = dataclasses.replace(
        CONFIG, train=TrainConfig(steps=7, log_every=3), run="elsewhere", stages=("train",), seed=1
    )
    assert differences(CONFIG, other) == {"train.steps", "seed"}


@pytest.mark.parametrize(
    ("sde", "expected"),
    [
        (SDEConfig(), sgm.VP()),
        (SDEConfig("SubVP", beta_max=10.0), sgm.SubVP(sgm.sde.Linear(beta_max=10.0))),
        (SDEConfig("VP", schedule="Cosine"), sgm.VP(sgm.sde.Cosine())),
        (SDEConfig("DiscreteChain", "Cosine", steps=40), sgm.DiscreteChain(sgm.sde.CosineBetas(40))),
        (SDEConfig("VE", sigma_max=50.0), sgm.VE(sigma_max=50.0)),
        (SDEConfig("Rectified", t0=0.01), sgm.Rectified(t0=0.01)),
    ],
)
def test_processes_are_built_from_their_options(sde, expected):
    assert eqx.tree_equal(sde.build(), expected)


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        *((option, "0", "at least 1") for option in ("train.steps", "train.batch-size", "sample.n", "evaluate.n")),
        *((option, "0", "more than 0") for option in ("train.learning-rate", "train.clip", "evaluate.tolerance")),
        ("train.average-decay", "1.5", "at least 0 and less than 1"),
    ],
)
def test_options_have_their_range(tmp_path, capsys, option, value, remedy):
    try:
        status = main([f"--{option}", value, "--run", str(tmp_path)])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    words = " ".join((printed.err + printed.out).replace("│", " ").split())
    assert status != 0 and f"{option} = {float(value):g}" in words.replace("0.0", "0") and f"pass {remedy}" in words


def test_the_gaussian_of_the_digits():
    reference = gaussian_bits_per_dim(Digits(), "test", 297, jax.random.key(0))
    assert reference is not None and reference.mean == pytest.approx(2.95, abs=0.03)


def test_the_gaussian_needs_more_images_than_dimensions(monkeypatch):
    monkeypatch.setattr("sgm.data.Digits.size", lambda self, split: 64)
    assert gaussian_bits_per_dim(Digits(), "test", 10, jax.random.key(0)) is None
