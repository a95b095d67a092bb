import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import PROCESSES, gaussian

import sgm
from sgm.model import Denoised, Flow, Gaussian, Karras, Noise, Score, Velocity

PREDICTIONS = {
    "Noise": (Noise(), lambda estimate, sin: estimate.noise),
    "Denoised": (Denoised(), lambda estimate, sin: estimate.denoised),
    "Velocity": (Velocity(), lambda estimate, sin: estimate.velocity),
    "Flow": (Flow(), lambda estimate, sin: estimate.noise - estimate.denoised),
    "Score": (Score(), lambda estimate, sin: -estimate.noise / sin),
}


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("theta", [1e-3, 0.5, 1.56])
def test_the_right_output_gives_the_exact_estimate(float64, name, theta):
    prediction, target = PREDICTIONS[name]
    level, u = jnp.log(jnp.tan(theta)), jnp.asarray([0.7, -1.3])
    exact = gaussian(2).predict(level, u)
    estimate = prediction.estimate(lambda inputs: target(exact, np.sin(theta)), level, u)
    for field in ("denoised", "noise", "velocity"):
        np.testing.assert_allclose(getattr(estimate, field), getattr(exact, field), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("t", [1e-4, 0.3, 0.9999, 1.0])
def test_flow_is_read_on_its_straight_path(t):
    x0, noise = np.asarray([0.7, -1.3]), np.asarray([0.2, 0.4])
    x, inputs = (1 - t) * x0 + t * noise, []

    def network(value):
        inputs.append(value)
        return jnp.asarray(noise - x0, jnp.float32)

    level = jnp.asarray(sgm.Rectified(t1=1.0).level(t))
    u = jnp.asarray(x / np.hypot(1 - t, t), jnp.float32)
    estimate = Flow().estimate(network, level, u)
    np.testing.assert_allclose(inputs[0], x, rtol=1e-6)
    np.testing.assert_allclose(estimate.denoised, x0, rtol=1e-6, atol=3e-7)
    np.testing.assert_allclose(estimate.noise, noise, rtol=1e-6, atol=3e-7)
    velocity = ((1 - t) * noise - t * x0) / np.hypot(1 - t, t)
    np.testing.assert_allclose(estimate.velocity, velocity, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("theta", [1e-3, 0.5, 1.56])
def test_karras_with_a_zero_network_is_the_gaussian_of_its_width(theta):
    level, u = jnp.log(jnp.tan(theta)), jnp.asarray([0.7, -1.3])
    exact = Gaussian(jnp.zeros(2), 0.25 * jnp.eye(2)).predict(level, u)
    estimate = Karras(0.5).estimate(jnp.zeros_like, level, u)
    for field in ("denoised", "noise", "velocity"):
        np.testing.assert_allclose(getattr(estimate, field), getattr(exact, field), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("theta", [1e-3, 0.5, 1.56])
def test_karras_has_the_coefficients_of_the_paper(float64, theta):
    sigma_data, u, output = 0.5, np.asarray([0.7, -1.3]), np.asarray([0.2, 0.4])
    sigma, x = np.tan(theta), u / np.cos(theta)
    root = np.hypot(sigma, sigma_data)
    inputs = []

    def network(value):
        inputs.append(value)
        return jnp.asarray(output)

    estimate = Karras(sigma_data).estimate(network, jnp.log(jnp.tan(theta)), jnp.asarray(u))
    np.testing.assert_allclose(inputs[0], x / root)
    expected = sigma_data**2 / root**2 * x + sigma * sigma_data / root * output
    np.testing.assert_allclose(estimate.denoised, expected)
    np.testing.assert_allclose(estimate.noise, (x - expected) / sigma)
    np.testing.assert_allclose(np.cos(theta) * estimate.noise - np.sin(theta) * expected, estimate.velocity)


def test_a_score_model_calls_its_network_with_the_level():
    seen = []

    def network(level, u, cond, key=None):
        seen.append((float(level), cond, key))
        return jnp.zeros_like(u)

    model = sgm.ScoreModel(network, Noise(), shape=(2,))
    model.predict(jnp.asarray(np.log(2), jnp.float32), jnp.ones(2), sgm.Condition(label=jnp.asarray(3)), jr.key(0))
    level, cond, key = seen[0]
    assert level == pytest.approx(np.log(2), rel=1e-6)
    assert int(cond.label) == 3 and key is not None


def test_the_same_network_scores_every_process():
    network = sgm.nn.MLP((2,), width=8, depth=1, key=jr.key(0))
    network = jax.tree.map(lambda leaf: leaf + 0.1 if eqx.is_inexact_array(leaf) else leaf, network)
    model = sgm.ScoreModel(network, Velocity(), shape=(2,))
    u, level = jnp.asarray([0.3, -0.5]), 0.03
    scores = []
    for sde in PROCESSES.values():
        t = sde.time(level)
        scores.append(sde.rho(t) * model.score(sde, t, sde.rho(t) * u))
    np.testing.assert_allclose(scores, np.tile(scores[0], (len(scores), 1)), rtol=2e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.score(sgm.VP(), 1.5, jnp.ones(2)),
            r"score: t = 1.5 lies outside \[t0, t1\] = \[1e-05, 1.0\] of VP",
        ),
        (lambda m: m.score(sgm.VP(), 0.5, jnp.ones(3)), r"score: x has shape \(3,\), but the model is of examples of"),
        (lambda m: m.denoise(sgm.VE(), -0.1, jnp.ones(2)), "denoise: t = -0.1"),
        (lambda m: Karras(0.0), "Karras: got sigma_data=0.0; pass the standard deviation of the data, > 0"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(gaussian(2))
