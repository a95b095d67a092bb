import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from truth import slopes

from sgm.data import GaussianField, GaussianFieldMap, power_spectrum

FIELD, MAP = GaussianField(resolution=5), GaussianFieldMap(resolution=5)


def dense_covariance(resolution, amplitude, slope, pivot=4.0):
    """F^H diag(P) F by the matrix of the DFT, mode by mode, in float64."""
    places = np.arange(resolution)
    line = np.exp(-2j * np.pi * np.outer(places, places) / resolution) / math.sqrt(resolution)
    waves = [place if place <= resolution // 2 else place - resolution for place in places]
    lengths = np.array([[math.hypot(row, column) for column in waves] for row in waves])
    lengths[0, 0] = 1
    modes = np.kron(line, line)
    covariance = modes.conj().T @ np.diag(amplitude * (lengths.ravel() / pivot) ** -slope) @ modes
    np.testing.assert_allclose(covariance.imag, 0, atol=1e-12 * np.abs(covariance).max())
    return covariance.real


def drawn(field, params, n, seed=0, dtype=jnp.float32):
    draw = jax.jit(jax.vmap(field.draw, (0, None)))
    return draw(jr.split(jr.key(seed), n), jnp.asarray(params, dtype))


@pytest.mark.parametrize(("resolution", "params"), [(4, (1.0, 2.0)), (5, (0.5, 3.0)), (6, (1.5, -1.0))])
def test_density_and_covariance_are_those_of_the_dense_normal(float64, resolution, params):
    field = GaussianField(resolution=resolution, pivot=3.0)
    covariance = dense_covariance(resolution, *params, pivot=3.0)
    params = jnp.asarray(params)
    np.testing.assert_allclose(jax.jit(field.covariance)(params), covariance, atol=1e-12)
    np.testing.assert_allclose(np.diag(covariance), np.mean(jax.jit(field.spectrum)(params)), rtol=1e-11)
    x = np.random.default_rng(0).normal(size=(resolution, resolution, 1))
    expected = scipy.stats.multivariate_normal(cov=covariance).logpdf(x.ravel())
    assert float(jax.jit(field.log_prob)(x, params)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("resolution", "params"), [(4, (0.5, 3.0)), (5, (1.5, 1.0))])
def test_draws_have_the_stated_covariance(resolution, params):
    n = 20_000
    x = np.asarray(drawn(GaussianField(resolution=resolution), params, n), np.float64).reshape(n, -1)
    factor = np.linalg.cholesky(dense_covariance(resolution, *params))
    white = np.linalg.solve(factor, x.T)
    assert scipy.stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    deviation = white @ white.T / n - np.eye(len(white))
    errors = np.where(np.eye(len(white)), math.sqrt(2 / n), math.sqrt(1 / n))
    assert np.abs(deviation / errors).max() < 4.5
    assert np.std(deviation / errors) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("resolution", [7, 8])
def test_power_spectrum_averages_the_modes_of_each_shell(float64, resolution):
    x = np.random.default_rng(1).normal(size=(resolution, resolution, 1))
    k, power = jax.jit(power_spectrum)(x)
    np.testing.assert_array_equal(k, np.arange(1, resolution // 2 + 1))
    places, half = np.arange(resolution), resolution // 2
    for shell, value in zip(np.asarray(k), power, strict=True):
        powers = []
        for row in range(-half, resolution - half):
            for column in range(-half, resolution - half):
                if abs(math.hypot(row, column) - shell) < 0.5:
                    wave = np.exp(-2j * np.pi * (row * places[:, None] + column * places) / resolution)
                    powers.append(abs(np.sum(wave * x[..., 0])) ** 2 / resolution**2)
        assert float(value) == pytest.approx(np.mean(powers), rel=1e-10)


def test_measured_spectra_scatter_about_the_spectrum():
    n = 2000
    x = drawn(GaussianField(), (1.2, 2.5), n)
    measured = np.asarray(jax.jit(jax.vmap(power_spectrum))(x)[1], np.float64)
    waves = np.fft.fftfreq(16, 1 / 16)
    lengths = np.hypot(waves[:, None], waves)
    for shell, values in enumerate(measured.T, start=1):
        truth = 1.2 * (lengths[np.rint(lengths) == shell] / 4) ** -2.5
        assert values.mean() == pytest.approx(truth.mean(), abs=4 * values.std() / math.sqrt(n))
        # each mode has the relative variance 2, and the modes of a shell scatter about their mean as well
        error = math.sqrt(2 * np.sum(truth**2)) / len(truth)
        assert values.std() == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("resolution", [4, 5, 8])
def test_posterior_is_the_conditional_of_the_dense_normal(float64, resolution):
    data = GaussianFieldMap(resolution=resolution, slope=1.5, noise_std=0.3)
    image = data.batch(0, 1, seed=1)[1]["image"][0].astype(np.float64)
    mean, cov = jax.jit(data.posterior)(image)
    prior = dense_covariance(resolution, 1.0, 1.5)
    y, mask = image.reshape(-1, 2).T
    seen = mask == 1
    assert 0 < seen.sum() < len(seen)
    gain = prior[:, seen] @ np.linalg.inv(prior[np.ix_(seen, seen)] + 0.3**2 * np.eye(seen.sum()))
    np.testing.assert_allclose(np.ravel(mean), gain @ y[seen], atol=1e-11)
    np.testing.assert_allclose(cov, prior - gain @ prior[seen], atol=1e-11)


def test_posterior_of_an_empty_map_is_the_prior(float64):
    mean, cov = jax.jit(MAP.posterior)(jnp.zeros((5, 5, 2)))
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_allclose(cov, dense_covariance(5, 1.0, 2.0), atol=1e-12)


def test_posterior_of_a_whole_map_with_little_noise_is_the_map(float64):
    x = np.random.default_rng(2).normal(size=(5, 5, 1))
    data = GaussianFieldMap(resolution=5, noise_std=1e-4)
    mean, cov = jax.jit(data.posterior)(np.concatenate([x, np.ones_like(x)], axis=-1))
    np.testing.assert_allclose(mean, x, atol=1e-6)
    np.testing.assert_allclose(cov / 1e-8, np.eye(25), atol=1e-6)


def test_hidden_pixels_have_no_say():
    image, posterior = MAP.batch(0, 1, seed=1)[1]["image"][0], jax.jit(MAP.posterior)
    changed = image + np.array([100, 0], np.float32) * (image[..., 1:] == 0)
    assert np.abs(changed - image).max() == 100
    for value, again in zip(posterior(image), posterior(changed), strict=True):
        np.testing.assert_array_equal(value, again)


@pytest.mark.slow
def test_simulated_fields_scatter_about_their_posteriors():
    data = GaussianFieldMap(resolution=8)
    x, fields = data.batch(0, 400, seed=0)
    mean, cov = (np.asarray(part, np.float64) for part in jax.jit(jax.vmap(data.posterior))(fields["image"]))
    offset = (x - mean).reshape(400, -1, 1)
    distances = np.sum(offset * np.linalg.solve(cov, offset), axis=(1, 2))
    assert scipy.stats.kstest(distances, scipy.stats.chi2(64).cdf).pvalue > 1e-3


@pytest.mark.slow_except("7")
@pytest.mark.parametrize("resolution", [7, 16])
def test_a_quarter_is_hidden_by_rectangles_that_lie_anywhere(resolution):
    data = GaussianFieldMap(resolution=resolution)
    x, fields = data.rows("train", 0, 2000)
    y, mask = np.moveaxis(fields["image"], -1, 0)
    hidden = mask == 0
    assert set(np.unique(mask)) == {0, 1} and (y[hidden] == 0).all()
    noise = (y - x[..., 0])[~hidden]
    assert scipy.stats.kstest(noise[:20_000] / 0.25, "norm").pvalue > 1e-3
    sides = []
    for axis in (1, 2):
        line = hidden.any(axis=axis)
        sides.append(line.sum(axis=1))
        assert (np.sum(line & ~np.roll(line, 1, axis=1), axis=1) == 1).all()  # one run, wrapped around
        assert set(sides[-1]) == set(range(resolution // 4, resolution - resolution // 4 + 1))
    np.testing.assert_array_equal(hidden.sum(axis=(1, 2)), sides[0] * sides[1])
    shares = hidden.mean(axis=(1, 2))
    assert shares.mean() == pytest.approx(0.25, abs=4 * shares.std() / math.sqrt(2000))
    assert np.abs(hidden.mean(axis=0) - shares.mean()).max() < 4.5 * math.sqrt(0.25 * 0.75 / 2000)


WEIGHTS = np.random.default_rng(0).normal(size=(5, 5, 2))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, params: FIELD.log_prob(x[..., :1], params),
        lambda x, params: jnp.vdot(WEIGHTS, x * FIELD.draw(jr.key(0), params)),
        lambda x, params: jnp.vdot(WEIGHTS[0, :2, 0], power_spectrum(params[0] * x[..., :1])[1]),
        lambda x, params: jnp.sum(FIELD.maximum_likelihood(params[0] * x[..., :1])[0]),
        lambda x, params: jnp.vdot(WEIGHTS[..., :1], params[0] * MAP.posterior(x)[0]) + jnp.sum(MAP.posterior(x)[1][3]),
    ],
    ids=["log_prob", "draw", "power_spectrum", "maximum_likelihood", "posterior"],
)
def test_gradients(float64, function):
    at = jr.normal(jr.key(2), (5, 5, 2)) ** 2, jnp.asarray([1.1, 2.2])
    direction = jr.normal(jr.key(3), (5, 5, 2)), jnp.asarray([0.3, -0.8])
    gradient, difference = slopes(jax.jit(lambda arguments: function(*arguments)), at, direction)
    assert gradient == pytest.approx(difference, rel=1e-6)


def test_the_likeliest_parameters_maximise_the_density(float64):
    field = GaussianField(resolution=9)
    truth = jnp.asarray([(0.7, slope) for slope in (-4.0, 0.0, 2.0, 8.0)])

    @jax.jit
    @jax.vmap
    def estimate(key, params):
        x = jax.vmap(field.draw, (0, None))(jr.split(key, 3), params)
        found, _ = field.maximum_likelihood(x)
        # concave in log(amplitude) and slope, so that the gradient vanishes at the maximum alone
        return found, jax.grad(lambda params: jnp.sum(jax.vmap(field.log_prob, (0, None))(x, params)))(found)

    found, gradient = estimate(jr.split(jr.key(0), 4), truth)
    np.testing.assert_allclose(gradient, 0, atol=1e-8)
    np.testing.assert_allclose(found[:, 1], truth[:, 1], atol=1)


def test_estimates_scatter_about_the_parameters_as_stated():
    field = GaussianField()
    x, fields = field.rows("test", 0, 2000)
    estimates, errors = jax.jit(jax.vmap(field.maximum_likelihood))(x)
    deviations = np.stack([np.log(estimates[:, 0] / fields["params"][:, 0]), (estimates - fields["params"])[:, 1]])
    stated = np.array([0.1068, 0.1805])
    relative = errors / np.stack([estimates[:, 0], np.ones(2000)], axis=1)
    np.testing.assert_allclose(relative, np.tile(stated, (2000, 1)), atol=1e-4)
    np.testing.assert_allclose(deviations.std(axis=1), stated, rtol=4 / math.sqrt(4000))
    # The terms of order 1 / N^2, where log(mean(w exp(slope u))) is expanded about the parameters
    waves = np.fft.fftfreq(16, 1 / 16)
    u = np.log(np.maximum(np.hypot(waves[:, None], waves), 1) / 4)
    slope_bias = np.mean((u - u.mean()) ** 3) / (256 * u.var() ** 2)
    biases = np.array([slope_bias * u.mean() - 2 / 256, slope_bias])
    np.testing.assert_allclose(biases, -0.011, atol=1e-3)
    assert (np.abs(deviations.mean(axis=1) - biases) < 4 * stated / math.sqrt(2000)).all()
    regression = scipy.stats.linregress(fields["params"][:, 1], estimates[:, 1])
    assert abs(regression.slope - 1) < 4 * regression.stderr < 0.05
    assert abs(regression.intercept - slope_bias) < 4 * regression.intercept_stderr


def test_fields_that_share_their_parameters_are_estimated_together():
    field = GaussianField()
    x = drawn(field, (1.2, 1.7), 100).reshape(4, 25, 16, 16, 1)
    estimate, errors = jax.jit(field.maximum_likelihood)(x)
    np.testing.assert_allclose(errors, [0.1075 * 1.2 / 10, 0.1805 / 10], rtol=0.1)
    assert (np.abs(estimate - np.array([1.2, 1.7], np.float32)) < 3 * errors).all()


@pytest.mark.parametrize("field", [GaussianField(), GaussianField(amplitude=(2.0, 2.5), slope=(-1.0, 4.0))])
def test_parameters_are_uniform_with_the_stated_statistics(field):
    params = np.asarray(field.rows("train", 0, 10_000)[1]["params"], np.float64)
    mean, std = field.statistics()
    assert mean.shape == std.shape == (2,) and mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(params.mean(axis=0), mean, atol=4 * std.max() / 100)
    np.testing.assert_allclose(params.std(axis=0), std, rtol=4 * math.sqrt(0.2) / 100)  # kurtosis 9/5
    for values, (low, high) in zip(params.T, (field.amplitude, field.slope), strict=True):
        assert scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3
    assert abs(np.corrcoef(params.T)[0, 1]) < 4 / 100


def test_maps_have_no_parameters():
    assert GaussianFieldMap().statistics() is None
    assert GaussianFieldMap().conditioning.parts == {"image": (16, 16, 2)}
    assert GaussianField().conditioning.parts == {"params": 2}


def test_fields_are_of_order_one():
    assert GaussianField().rows("train", 0, 10_000)[0].std() == pytest.approx(1.1, abs=0.1)
    for amplitude, slope, std in ((0.5, 1.0, 0.646), (1.0, 2.0, 1.041), (1.5, 3.0, 1.870)):
        power = GaussianField().spectrum(jnp.asarray([amplitude, slope]))
        assert float(jnp.sqrt(jnp.mean(power))) == pytest.approx(std, abs=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_results_have_the_precision_of_the_arguments(float64, dtype):
    @jax.jit
    def everything(params, image):
        x = FIELD.draw(jr.key(0), params)
        of_params = FIELD.spectrum(params), FIELD.covariance(params), FIELD.log_prob(x, params)
        return (
            x,
            of_params,
            power_spectrum(x),
            FIELD.maximum_likelihood(x),
            MAP.observe(jr.key(0), x),
            MAP.posterior(image),
        )

    results = everything(jnp.asarray([1.0, 2.0], dtype), jnp.ones((5, 5, 2), dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {np.dtype(dtype)}


@pytest.mark.parametrize("kind", [GaussianField, GaussianFieldMap])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 1}, "resolution = 1; pass resolution >= 2"),
        ({"pivot": 0.0}, "pivot = 0.0; pass a positive wave number, in cycles per box"),
        ({"pivot": math.nan}, "pivot = nan; pass a positive wave number"),
    ],
)
def test_grids_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
        kind(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (GaussianField, {"slope": (2.0, 2.0)}, r"slope = \(2.0, 2.0\); pass a lower and a higher end"),
        (GaussianField, {"amplitude": (1.5, 0.5)}, r"amplitude = \(1.5, 0.5\); pass a lower and a higher end"),
        (GaussianField, {"slope": (0.0, math.inf)}, r"slope = \(0.0, inf\); pass a lower and a higher end"),
        (GaussianField, {"amplitude": (0.0, 1.0)}, r"amplitude = \(0.0, 1.0\); pass ends above 0"),
        (GaussianFieldMap, {"amplitude": -1.0}, "amplitude = -1.0; pass a positive number"),
        (GaussianFieldMap, {"noise_std": 0.0}, "noise_std = 0.0; pass a positive number"),
        (GaussianFieldMap, {"slope": math.nan}, "slope = nan; pass a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
        kind(**settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda wrong: FIELD.log_prob(wrong, jnp.ones(2)),
            r"log_prob: x has shape \(4, 4, 1\), but .* is \(5, 5, 1\);",
        ),
        (FIELD.maximum_likelihood, r"maximum_likelihood: x has shape \(4, 4, 1\), but .*; vmap over a batch"),
        (
            lambda wrong: MAP.posterior(wrong[..., [0, 0]]),
            r"posterior: image has shape \(4, 4, 2\), but .* \(5, 5, 2\);",
        ),
    ],
)
def test_examples_of_another_shape_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((4, 4, 1)))
