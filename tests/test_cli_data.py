"""The command line on data of every kind, on small runs of shipped configurations and of files."""

import math

import jax
import numpy as np
import PIL.Image
import pytest
from commands import ROUGH, STEPS, TINY, command, is_picture, metrics_of

import sgm
from sgm.cli import main
from sgm.data import Coins
from sgm.runs import read_experiment

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.mark.slow
def test_a_plane_gets_its_own_pictures(tmp_path, capsys):
    assert command(tmp_path / "moons", "--config", "moons", *TINY) == 0
    for name in ("data", "process", "objective", "samples", "trajectories", "density"):
        assert is_picture(tmp_path / "moons" / f"{name}.png"), name
    assert "minus_entropy            -2.3939 nats" in capsys.readouterr().out


@pytest.mark.slow
def test_classes_that_come_with_parameters_are_drawn_as_they_come(tmp_path):
    path, run, rng = tmp_path / "maps.npz", tmp_path / "run", np.random.default_rng(0)
    np.savez(path, x=rng.normal(size=(40, 2)), theta=rng.uniform(size=(40, 2)), kind=np.arange(40) % 3)
    options = ("--data", "Files", "--data.path", str(path), "--data.params", "theta", "--data.label", "kind")
    assert command(run, *options, "--network", "MLP", *TINY, *STEPS, *ROUGH, "--stages", "train", "sample") == 0
    assert is_picture(run / "samples.png")


@pytest.mark.slow
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
        ((4, 6, 5), "train", "the channels side by side, in grey", {"data", "samples_step_0000006"}),
        ((2, 2, 2, 1), "train sample evaluate", "none, for examples of shape (2, 2, 2, 1)", set()),
    ],
)
def test_data_of_any_shape_are_drawn_or_left_out(tmp_path, capsys, shape, stages, manner, pictures):
    path, run, rng = tmp_path / "maps.npz", tmp_path / "run", np.random.default_rng(0)
    np.savez(path, x=rng.normal(3, 0.4, (40, *shape)), theta=rng.uniform(size=(40, 2)))
    options = ("--data", "Files", "--data.path", str(path), "--data.params", "theta", "--network", "MLP", *TINY)
    assert command(run, *options, *STEPS, *ROUGH, "--stages", *stages.split()) == 0
    assert f"pictures of examples: {manner}" in capsys.readouterr().out
    drawn = {path.stem for path in run.glob("*.png")}
    assert pictures <= drawn and all(is_picture(run / f"{name}.png") for name in drawn)
    if not pictures:
        assert not drawn & {"data", "samples", "samples_flow", "film_strip", "evaluation_extremes"}
    # The model is loaded where the file is not.
    path.unlink()
    _, model = sgm.load(run)
    np.testing.assert_allclose(model.units.mean.value, 3, atol=0.3)
    assert model.conditioning.params == 2


@pytest.mark.slow
def test_images_of_any_aspect_channels_and_depth(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 14, 4), np.uint8)
    (tmp_path / "images").mkdir()
    for place, pixels in enumerate(noise):
        PIL.Image.fromarray(pixels).save(tmp_path / "images" / f"{place}.png")
    small = ("--network.width", "4", "--network.multipliers", "1", "--network.blocks", "1")
    options = ("--data.path", str(tmp_path / "images"), "--data.resolution", "8", "12", "--data.channels", "4")
    options += ("--data.levels", "65536", *small, "--stages", "train", "evaluate")
    run = tmp_path / "run"
    assert command(run, "--config", "flowers", *options) == 0
    assert "pictures of examples: RGB and alpha, on white" in capsys.readouterr().out
    for name in ("data", "samples_step_0000006", "evaluation_extremes"):
        assert is_picture(run / f"{name}.png"), name
    rows = metrics_of(run)
    assert rows["uniform_bits_per_dim"]["value"] == 16 and np.isfinite(rows["bits_per_dim"]["value"])
    assert read_experiment(run).data.shape == (8, 12, 4)


@pytest.mark.slow
def test_a_chain_is_trained_on_its_bound(tmp_path, capsys):
    folder, network = tmp_path / "roll", ("--network.dense", "1", "--network.dense-width", "16")
    chain = ("--sde.betas.steps", "20", "--prediction.mean.chain.betas.steps", "20", "--sampler.steps", "19")
    stages = ("--stages", "train", "evaluate")
    assert command(folder, "--config", "sohl_swiss_roll", *chain, *network, *stages) == 0
    rows = metrics_of(folder)
    assert rows["bound"]["value"] < 0
    expected = (rows["bound"]["value"] / 2 + 0.5 * np.log(2 * np.pi * np.e)) / np.log(2)
    assert rows["bits_over_gaussian"]["value"] == pytest.approx(expected, rel=1e-4)
    sampling = ("--run", str(folder), "--stages", "sample")
    assert main([*sampling, "--sampler", "DDIM", "--sampler.steps", "5", "--sampler.eta", "0.5"]) == 0
    assert is_picture(folder / "samples.png")
    with pytest.raises(SystemExit):
        main([*sampling, "--sampler.eta", "0.5"])
    printed = capsys.readouterr()
    assert "--sampler.eta" in printed.err + printed.out


@pytest.mark.slow
def test_coins_are_compared_with_their_entropy(tmp_path, capsys):
    options = (*TINY, "--metrics.LogLikelihood.samples", "1", "--stages", "train", "evaluate")
    assert command(tmp_path / "coins", "--config", "coins", *options) == 0
    rows = metrics_of(tmp_path / "coins")
    assert rows["minus_entropy"]["value"] == pytest.approx(-Coins().entropy)
    assert rows["entropy_bits_per_dim"]["value"] == pytest.approx(np.log2(math.comb(48, 36)) / 48)
    assert "entropy_bits_per_dim     0.7504" in capsys.readouterr().out


@pytest.mark.slow
def test_digits_conditioned_on_classes_by_a_chain(tmp_path, capsys):
    """Bits over a Gaussian are of data of variance one, which digits are not."""
    options = ("--config", "digits", "--data.label", *TINY, "--sde", "DiscreteChain", "--sde.betas.steps", "20")
    guidance = ("--guidance", "ClassifierFree", "--guidance.weight", "3", "--guidance.interval", "0.1", "inf")
    options += ("--loss.condition-dropout", "0.2")
    assert command(tmp_path / "classes", *options, *STEPS, *guidance, "--metrics", "ChainBound") == 0
    assert is_picture(tmp_path / "classes" / "guidance.png")
    assert read_experiment(tmp_path / "classes").guidance.keywords["interval"] == (0.1, math.inf)
    _, model = sgm.load(tmp_path / "classes")
    assert model.network.embedding.labels.shape[0] == 10
    rows = metrics_of(tmp_path / "classes")
    assert "bound" in rows and "bits_over_gaussian" not in rows
    assert "bits_over_gaussian" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("grf", marks=pytest.mark.slow), "grf_map"])
def test_fields_are_conditioned_and_compared_with_the_truth(name, tmp_path):
    arguments = ("--config", name, "--data.resolution", "4", "--network", "MLP", *TINY)
    arguments += ("--loss.condition-dropout", "0.2", "--training.accumulate", "2", *STEPS)
    assert command(tmp_path / name, *arguments) == 0
    assert is_picture(tmp_path / name / "samples.png")
    assert (tmp_path / name / "posteriors.png").exists() == (name == "grf_map")
    rows, data = metrics_of(tmp_path / name), read_experiment(tmp_path / name).data
    x, fields = data.rows("test", 0, 3)
    records = [(x[i], {part: values[i] for part, values in fields.items()}) for i in range(len(x))]
    exact = [float(data.conditional_log_prob(*jax.tree.map(jax.numpy.asarray, record))) for record in records]
    assert rows["exact_log_prob"]["value"] == pytest.approx(np.mean(exact), rel=1e-4)
    assert rows["log_prob"]["value"] < rows["exact_log_prob"]["value"]
    _, model = sgm.load(tmp_path / name)
    assert model.conditioning.null
    if name == "grf":
        np.testing.assert_array_equal(model.network.embedding.standardisation.mean.value, data.statistics()[0])


@pytest.mark.slow
def test_fewer_points_than_a_film_shows_are_filmed_all(tmp_path):
    path, run, rng = tmp_path / "points.npz", tmp_path / "run", np.random.default_rng(0)
    np.savez(path, x=rng.normal(3, 0.4, (30, 2)))
    options = ("--data", "Files", "--data.path", str(path), "--network", "MLP", *TINY, *STEPS)
    assert command(run, *options, "--stages", "train", "film", "--drawing.film", "4") == 0
    for name, frames in {"film": 3 + 5, "film_flow": 5}.items():
        with PIL.Image.open(run / f"{name}.gif") as film:
            assert film.n_frames == frames
