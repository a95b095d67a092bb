import importlib.util
import pathlib
import runpy
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import PIL.Image
import pytest
from scipy import stats

import sgm
from sgm import cli
from sgm.data import GaussianField
from sgm.posterior import MMPS

# BlackJAX, optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

EXAMPLES = pathlib.Path(__file__).parents[1] / "docs" / "examples"
DATA = GaussianField(resolution=8)


@pytest.fixture(scope="module")
def infer_field():
    spec = importlib.util.spec_from_file_location("infer_field", EXAMPLES / "infer_field.py")
    module = sys.modules["infer_field"] = importlib.util.module_from_spec(spec)  # where dataclasses look types up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def field():
    return DATA.draw(jr.key(0), jnp.asarray([0.9, 1.8]))


@pytest.fixture(scope="module")
def truth(field):
    """Mean and standard deviation of the parameters, by Gauss-Legendre quadrature of the pixels' density."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    amplitude, slope = nodes / 2 + 1, nodes + 2
    grid = np.stack(np.meshgrid(amplitude, slope, indexing="ij"), axis=-1).reshape(-1, 2)
    covs = jax.vmap(DATA.covariance)(jnp.asarray(grid, jnp.float32))
    log_prob = np.array([stats.multivariate_normal.logpdf(np.ravel(field), cov=cov) for cov in covs])
    mass = np.outer(weights, weights).ravel() * np.exp(log_prob - log_prob.max())
    mean = np.average(grid, axis=0, weights=mass)
    return mean, np.sqrt(np.average((grid - mean) ** 2, axis=0, weights=mass))


@pytest.mark.slow
def test_exact_posterior(infer_field, field, truth):
    grid, mass = infer_field.exact_posterior(DATA, field)
    assert mass.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(infer_field.moments(grid.reshape(-1, 2), mass.ravel()), truth, rtol=1e-3)


@pytest.mark.slow
def test_nuts_on_the_exact_likelihood_finds_the_exact_posterior(infer_field, field, truth):
    samples, info = infer_field.nuts(lambda params: DATA.log_prob(field, params), DATA, 4000, jr.key(1))
    mean, std = infer_field.moments(samples)
    # Some 1500 effective samples: standard errors of 0.026 in the shift and 0.018 in the ratio.
    np.testing.assert_allclose((mean - truth[0]) / truth[1], 0, atol=0.1)
    np.testing.assert_allclose(std / truth[1], 1, atol=0.07)
    assert info.is_divergent.mean() < 0.01


@pytest.mark.slow
def test_learned_likelihood_of_the_exact_model_is_the_exact_one(infer_field):
    data = GaussianField(resolution=4)

    def denoised(level, u, cond, key=None):
        variance = data.spectrum(cond.params)[..., None]
        gain = variance / (variance + jnp.exp(2 * level)) * jnp.sqrt(1 + jnp.exp(2 * level))
        return jnp.fft.ifft2(gain * jnp.fft.fft2(u, axes=(0, 1)), axes=(0, 1)).real

    model = sgm.ScoreModel(denoised, sgm.model.Denoised(), shape=data.shape)
    params = jnp.asarray([0.9, 1.8])
    x = data.draw(jr.key(0), params)
    value, gradient = jax.value_and_grad(infer_field.learned_log_likelihood(sgm.VP(), model, x))(params)
    exact_value, exact_gradient = jax.value_and_grad(data.log_prob, 1)(x, params)
    assert value == pytest.approx(float(exact_value), abs=0.05)
    np.testing.assert_allclose(gradient, exact_gradient, atol=0.05)


def test_whitened_fields_have_unit_covariance(infer_field):
    whitened = infer_field.WhitenedField(DATA).whiten(DATA.rows("test", 0, 10_000)[0])
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(64), atol=0.1)


@pytest.mark.slow
def test_script(infer_field, tmp_path, capsys):
    samples = infer_field.main(steps=4, samples=20, figure=tmp_path / "figs" / "field.png")
    assert samples.shape == (20, 2) and np.unique(samples, axis=0).shape[0] > 5
    assert np.all((samples > jnp.asarray([0.5, 1.0])) & (samples < jnp.asarray([1.5, 3.0])))
    printed = capsys.readouterr().out
    assert ", 0 divergences" in printed and "amplitude  0.90" in printed
    with PIL.Image.open(tmp_path / "figs" / "field.png") as picture:
        assert min(picture.size) > 500


@pytest.mark.slow
def test_the_field_behind_a_map_is_drawn(tmp_path):
    example = runpy.run_path(str(EXAMPLES / "field_posterior.py"))
    methods = {"MMPS": MMPS(iterations=2, sampler=sgm.DDIM(3))}
    found = example["main"](tmp_path, steps=2, draws=3, rows=2, methods=methods)
    assert np.all(np.isfinite(found["MMPS"]))
    assert PIL.Image.open(tmp_path / "field_posterior.png").width > 100


@pytest.mark.slow
def test_guided_digits_are_drawn(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "digits_guidance.py"))
    found = example["main"](tmp_path, steps=2, each=2)
    assert len(found) == 10 and "rescale 1, weight 4: accuracy" in capsys.readouterr().out
    accuracy, spread = np.asarray([*found.values()]).T
    assert np.all((accuracy >= 0) & (accuracy <= 1)) and np.all(spread > 0)
    assert PIL.Image.open(tmp_path / "digits_guidance.png").width > 500


def test_nearest_digits_have_their_labels():
    example = runpy.run_path(str(EXAMPLES / "digits_guidance.py"))
    x, _ = example["flat_rows"](sgm.data.Digits(label=True), "test")
    assert np.array_equal(example["nearest"](x[:20] + 0.1, x), np.arange(20))
    # One class of ten has two digits at +-1 of their mean, the others are at one place.
    cloud = np.zeros((20, 3))
    cloud[[0, 10], 0] = [1, -1]
    assert example["spread"](cloud, np.arange(20) % 10) == pytest.approx(np.sqrt(0.1))


@pytest.mark.slow
def test_a_posterior_is_checked_in_five_ways(tmp_path):
    main = runpy.run_path(str(EXAMPLES / "check_posterior.py"))["main"]
    report = main(tmp_path, steps=3, records=30, draws=9)
    figures = {path.name.removeprefix("check_posterior_") for path in tmp_path.iterdir()}
    assert figures == {f"{name}.png" for name in ("c2st", "calibration", "coverage", "local", "predictive")}
    assert report["c2st"].value > 0.6  # hardly trained


@pytest.mark.slow
def test_digits_are_trained_by_their_likelihood(tmp_path, capsys):
    small = ("--network.width", "16", "--network.depth", "1", "--training.batch-size", "8", "--training.steps", "2")
    assert cli.main([*small, "--run", str(tmp_path), "--stages", "train"]) == 0
    main = runpy.run_path(str(EXAMPLES / "digits_likelihood.py"))["main"]
    bits = main(tmp_path, steps=2, batch_size=4, n=6, trace=sgm.Hutchinson(1))
    assert bits.shape == (2, 2, 6) and np.all(np.isfinite(bits)) and np.any(bits[0] != bits[1])
    assert "change on test digits: " in capsys.readouterr().out


@pytest.mark.quick
def test_the_table_of_samplers_is_read_whole():
    page = EXAMPLES.parent / "sampling.md"
    rows = runpy.run_path(str(EXAMPLES / "sampler_choice.py"))["rows"](page)
    table = page.read_text().split("| samples | evaluations |")[1].split("\n\n")[0].splitlines()
    assert sum(map(len, rows.values())) == len(table) - 2
    assert all(0 < error < distance for points in rows.values() for _, distance, error in points)


@pytest.mark.slow
def test_paths_of_all_processes_coincide():
    paths = runpy.run_path(str(EXAMPLES / "universal_path.py"))["paths"]
    scaled = []
    for sde in (sgm.VP(), sgm.Rectified()):
        times, x = paths(sde)
        scaled.append(x / np.asarray(sde.rho(jnp.asarray(times))))
    np.testing.assert_allclose(scaled[0], scaled[1], atol=3e-3)
    assert np.ptp(scaled[0][:, -1]) > 2  # and are paths to both modes


@pytest.mark.slow
def test_images_of_classes_are_drawn_guided_completed_and_interpolated(tmp_path):
    run = tmp_path / "digits"
    tiny = "--network.width 16 --network.depth 1 --training.steps 2 --loss.condition-dropout 0.1 --stages train"
    cli.main(["--config", "digits", "--data.label", *tiny.split(), "--run", str(run)])
    example = runpy.run_path(str(EXAMPLES / "mnist.py"))
    example["samples"].__defaults__ = sgm.DPMSolverPP(2), sgm.EulerMaruyama(2)
    example["inpainting"].__defaults__ = (MMPS(sampler=sgm.DDIM(2)),)
    example["main"](run, tmp_path, list(example["FIGURES"]))
    for name in ("samples", "guidance", "inpainting", "interpolation"):
        assert PIL.Image.open(tmp_path / f"digits_{name}.png").width > 500


@pytest.mark.slow
def test_toys_are_drawn_in_one_picture(tmp_path):
    tiny = "--network.width 16 --network.depth 1 --training.steps 2 --stages train"
    cli.main(["--config", "moons", *tiny.split(), "--run", str(tmp_path / "moons")])
    runpy.run_path(str(EXAMPLES / "toys.py"))["main"](tmp_path, tmp_path, ("moons",), n=50, side=8)
    assert PIL.Image.open(tmp_path / "toys.png").height > 500
