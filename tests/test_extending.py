"""Each part of docs/extending.md, used from the command line."""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classes import forget_module

import sgm
from sgm.cli import main
from sgm.flags import from_flags

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
SMALL = ("--training.steps", "4", "--training.batch-size", "16", "--drawing.n", "4", "--drawing.frames", "2")
SMALL += ("--evaluation.n", "6", "--training.preview-every", "4", "--drawing.tolerance", "1e-2")

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "extending.py"
    path.write_text("\n".join(BLOCKS))
    yield path
    forget_module("extending")


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    """All parts of the page in one trained run, each named by a flag."""
    folder = tmp_path_factory.mktemp("runs") / "own"
    parts = ("--data", "Ring", "--data.radius", "4", "--network", "Plain", "--network.width", "8", "--sde", "Exploding")
    parts += ("--prediction", "Residual", "--loss.weighting", "MinSNR", "--loss.weighting.gamma", "4")
    parts += ("--sampler", "Euler", "--sampler.steps", "5", "--metrics", "LogLikelihood", "MeanError")
    parts += ("--metrics.LogLikelihood.trace", "Sphere", "--metrics.LogLikelihood.trace.count", "3")
    with jax.numpy_dtype_promotion("standard"):
        assert main(["--config", str(script), *parts, *SMALL, "--stages", "train", "--run", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_a_command_has_every_part_of_the_page(run):
    assert main(["--stages", "sample", "evaluate", "--run", str(run)]) == 0
    written = json.loads((run / "experiment.json").read_text())
    named = {
        "data": written["data"],
        "network": written["network"],
        "sde": written["sde"],
        "prediction": written["prediction"],
        "weighting": written["loss"]["weighting"],
        "sampler": written["sampler"],
        "trace": written["metrics"][0]["trace"],
        "metric": written["metrics"][1],
    }
    assert [part["type"] for part in named.values()] == [
        *("Ring", "Plain", "Exploding", "Residual", "MinSNR", "Euler", "Sphere", "MeanError")
    ]
    assert {part["module"] for part in named.values()} == {"extending"}
    assert (named["data"]["radius"], named["network"]["width"], named["trace"]["count"]) == (4.0, 8, 3)
    rows = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert np.isfinite(rows["log_prob"]["value"]) and rows["mean_error"]["value"] > 0


@pytest.mark.slow
def test_the_run_is_evaluated_later(run, script, capsys):
    """As by a new process, which knows no class of the file before the configuration is read."""
    del sys.modules["extending"]
    forget_module("extending")
    again = ("--stages", "evaluate", "--run", str(run))
    assert main([*again]) == 1
    remedy = "a class of the module 'extending'; import extending first, on the command line by --config extending.py"
    assert remedy in capsys.readouterr().err
    assert main(["--config", str(script), *again]) == 0
    assert "mean_error" in capsys.readouterr().out


def test_the_run_is_loaded(run):
    sde, model = sgm.load(run)
    assert type(sde).__name__ == "Exploding" and model.shape == (2,)
    assert sgm.sample(sde, model, jax.random.key(0), 3, method=sgm.DDIM(4)).shape == (3, 2)


@pytest.mark.slow
def test_a_schedule_of_the_page_is_named_by_a_flag(script, tmp_path):
    flags = ("--sde", "VP", "--sde.schedule", "Sine", "--sde.schedule.largest", "15", "--stages", "train")
    assert main(["--config", str(script), *flags, *SMALL, "--run", str(tmp_path / "run")]) == 0
    sde, _ = sgm.load(tmp_path / "run")
    t = jnp.asarray(0.5)
    expected = 0.1 * 0.5 + 15 * (0.25 - np.sin(np.pi / 2) / (2 * np.pi))
    assert float(sde.schedule.integral(t)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_masking_of_the_page_is_named_by_a_flag(script, tmp_path):
    flags = ("--network", "Transformer", "--network.width", "8", "--network.depth", "1", "--network.heads", "2")
    flags += ("--loss.masking", "Halves", "--loss.masking.share", "0.3", "--stages", "train")
    assert main(["--config", str(script), *flags, *SMALL, "--run", str(tmp_path / "run")]) == 0
    masking = json.loads((tmp_path / "run" / "experiment.json").read_text())["loss"]["masking"]
    assert (masking["type"], masking["share"]) == ("Halves", 0.3)
    _, model = sgm.load(tmp_path / "run")
    assert model.conditioning.observed == 2


def test_the_only_simulator_is_that_of_a_metric(run):
    names = vars(sys.modules["extending"])
    flags = ["--metrics", "PosteriorPredictive", "--metrics.PosteriorPredictive.simulator.std", "0.3"]
    chosen = from_flags(sgm.Experiment, flags, names["experiment"])
    assert chosen.metrics == (sgm.evaluation.PosteriorPredictive(names["Noisy"](0.3)),)


CLASSES = {block.partition("class ")[2].partition("(")[0]: block for block in BLOCKS if "class " in block}


@pytest.mark.parametrize("block", CLASSES.values(), ids=CLASSES.keys())
def test_a_part_is_short(block):
    """Fewer than 20 lines of code, besides blank ones and the docstring."""
    code = re.sub(r'"""(.*?)"""', "", block, flags=re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 20, len(lines)


def test_the_parts_are_right(run):
    """The closed forms that the page's classes must meet."""
    names = vars(sys.modules["extending"])
    model, x = sgm.model.Gaussian(jnp.zeros(2), 0.5 * jnp.eye(2)), jnp.asarray([[0.3, -0.8], [1.1, 0.2]])
    sde = names["Exploding"]()
    truth = jax.scipy.stats.multivariate_normal.logpdf(x, jnp.zeros(2), 0.5 * jnp.eye(2))
    found = sgm.log_prob(sde, model, x, jax.random.key(0), trace=names["Sphere"](8))
    np.testing.assert_allclose(found, truth, atol=5e-3)  # the trace of a multiple of I is exact on a sphere
    white, level, u = sgm.model.Gaussian(jnp.zeros(2), jnp.eye(2)), jnp.asarray(0.4), jnp.asarray([0.7, -0.2])
    evidence, share = sgm.posterior.Linear(lambda x: x, jnp.asarray([1.0, jnp.nan]), 0.1), 1 / (1 + np.exp(0.8))
    guided = names["ReconstructionGuidance"](0.5).guide(white, evidence).predict(level, u).denoised
    plain = np.sqrt(share) * np.asarray(u)  # cos(theta) u, and its covariance is sin(theta)^2 I
    np.testing.assert_allclose(guided, [plain[0] + 0.5 * share * (1 - plain[0]), plain[1]], atol=1e-6)
    drawn = sgm.sample(sde, model, jax.random.key(1), 4000, method=names["Euler"](100))
    np.testing.assert_allclose(np.cov(np.asarray(drawn).T), 0.5 * np.eye(2), atol=0.05)
    masks = jax.vmap(lambda key: names["Halves"](0.3).mask(key, (2,)))(jax.random.split(jax.random.key(2), 4000))
    np.testing.assert_allclose(masks.mean(0), 0.3, atol=4 * (0.3 * 0.7 / 4000) ** 0.5)
    theta, fields = names["pairs"].batch(0, 4000, 0)
    assert jax.vmap(names["Disc"]().contains)(theta).all()
    np.testing.assert_allclose(np.cov(theta.T), np.eye(2) / 4, atol=0.02)  # of a disc; x is it with noise of 0.1
    np.testing.assert_allclose(np.cov((fields["params"] - theta).T), 0.01 * np.eye(2), atol=1e-3)
