import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import FOUR, PROCESSES

import sgm
from sgm.model import Gaussian
from sgm.training.times import NormalLogSNR, UniformLogSNR, UniformTime
from sgm.training.weightings import KarrasWeighting, LikelihoodWeighting, UniformWeighting

STD = 0.5
MODEL = Gaussian(jnp.zeros(4), STD**2 * jnp.eye(4))
WEIGHTINGS = {"uniform": UniformWeighting(), "likelihood": LikelihoodWeighting(), "karras": KarrasWeighting(STD)}
TIMES = {"t": UniformTime(), "log-SNR": UniformLogSNR(), "normal": NormalLogSNR()}


def exact_loss(sde, weighting):
    """For Gaussian data the noise has posterior variance cos^2 STD^2 / (cos^2 STD^2 + sin^2), integrated over t."""
    ratio = np.geomspace(np.tan(float(sde.theta(sde.t0))), np.tan(float(sde.theta(sde.t1))), 20_001)
    t = np.clip(np.asarray(sde.time(np.log(ratio))), sde.t0, sde.t1)
    variance = STD**2 / (STD**2 + ratio**2)
    log_ratio = np.log(ratio)
    if weighting == "uniform":
        return np.trapezoid(variance, t) / (sde.t1 - sde.t0)
    if weighting == "likelihood":
        return np.trapezoid(variance, log_ratio)
    density = np.exp(-0.5 * ((log_ratio + 1.2) / 1.2) ** 2) / (1.2 * np.sqrt(2 * np.pi))
    return np.trapezoid(density * (ratio**2 + STD**2) / STD**2 * variance, log_ratio)


def losses(sde, weighting, times, draws=400, batch=64):
    """Each with fresh data, so that their average is the expectation."""

    def loss(key):
        key_x, key_loss = jr.split(key)
        return sgm.score_matching_loss(
            sde, MODEL, MODEL.sample(key_x, batch), key_loss, weighting=WEIGHTINGS[weighting], times=TIMES[times]
        )

    return np.asarray(jax.jit(jax.vmap(loss))(jr.split(jr.key(1), draws)))


@pytest.mark.slow_except("*-VP", "likelihood-log-SNR-*")
@pytest.mark.parametrize("process", FOUR)
@pytest.mark.parametrize(
    ("weighting", "times"),
    [("uniform", "t"), ("uniform", "log-SNR"), ("likelihood", "log-SNR"), ("karras", "normal"), ("karras", "log-SNR")],
)
def test_the_loss_has_its_expectation_whatever_the_times(process, weighting, times):
    sde = PROCESSES[process]
    values = losses(sde, weighting, times)
    standard_error = values.std() / len(values) ** 0.5
    assert abs(values.mean() - exact_loss(sde, weighting)) < 5 * standard_error


def test_log_snr_times_are_importance_sampling_for_the_likelihood():
    uniform, important = (losses(sgm.VP(), "likelihood", times) for times in ("t", "log-SNR"))
    assert important.mean() == pytest.approx(exact_loss(sgm.VP(), "likelihood"), rel=0.02)
    assert important.var() < 0.05 * uniform.var()


def test_the_likelihood_weight_over_log_snr_times_is_constant():
    sde, times = sgm.VP(), UniformLogSNR()
    t = times.quantile(sde, jnp.linspace(0, 1, 101))
    constant = LikelihoodWeighting().weight(sde, t) / times.density(sde, t)
    np.testing.assert_allclose(constant, 0.5 * (sde.log_snr(sde.t0) - sde.log_snr(sde.t1)), rtol=1e-4)


def test_likelihood_weighting_is_the_papers():
    sde, t = sgm.SubVP(), jnp.asarray([0.1, 0.5, 0.9])
    expected = 0.5 * sde.diffusion(t) ** 2 / sde.sigma(t) ** 2 * (sde.t1 - sde.t0)
    np.testing.assert_allclose(LikelihoodWeighting().weight(sde, t), expected, rtol=1e-6)


@pytest.mark.parametrize("process", FOUR)
@pytest.mark.parametrize("times", TIMES)
def test_time_densities_are_those_of_the_quantiles(process, times):
    sde, sampling = PROCESSES[process], TIMES[times]
    probability = jnp.linspace(0.05, 0.95, 19)

    @jax.jit
    def of_quantiles(probability):
        slope = jax.vmap(jax.grad(lambda p: sampling.quantile(sde, p[None])[0]))(probability)
        return sampling.density(sde, sampling.quantile(sde, probability)) * slope

    np.testing.assert_allclose(of_quantiles(probability), sde.t1 - sde.t0, rtol=2e-3)


def test_times_of_a_batch_are_stratified():
    """With one offset for all, the mean over a batch of a smooth function of t hardly varies."""
    model = Gaussian(jnp.zeros(1), jnp.eye(1))

    class LevelOnly(sgm.model.AbstractModel):
        shape: tuple[int, ...] = (1,)

        def predict(self, level, u, cond=None, key=None):
            # Exact but for an error that depends on the level alone.
            exact = model.predict(level, u)
            return jax.tree.map(lambda part: jnp.full_like(part, 1e3 * sgm.sde.sin_of(level)), exact)

    x = jnp.zeros((64, 1))
    loss = jax.jit(jax.vmap(lambda key: sgm.score_matching_loss(sgm.VP(), LevelOnly(), x, key)))
    values = loss(jr.split(jr.key(0), 200))
    theta = np.asarray(sgm.VP().theta(np.linspace(1e-5, 1, 1000)))
    independent = np.std(1e6 * np.sin(theta) ** 2 * np.cos(theta) ** 2) / 64**0.5
    assert values.std() < 0.2 * independent


def test_the_exact_model_has_the_least_loss():
    x = MODEL.sample(jr.key(2), 4096)
    wrong = Gaussian(jnp.zeros(4), 1.2 * STD**2 * jnp.eye(4))
    loss = eqx.filter_jit(lambda model: sgm.score_matching_loss(sgm.VP(), model, x, jr.key(3)))
    exact, other = (loss(model) for model in (MODEL, wrong))
    assert float(exact) < float(other)


def test_dropout_conditions_and_single_examples_pass_through():
    seen = []

    class Recorder(sgm.model.AbstractModel):
        shape: tuple[int, ...] = (4,)

        def predict(self, level, u, cond=None, key=None):
            seen.append((cond.label, key))
            return MODEL.predict(level, u)

    cond = sgm.Condition(label=jnp.arange(3))
    assert sgm.score_matching_loss(sgm.VP(), Recorder(), jnp.ones((3, 4)), jr.key(0), cond=cond).shape == ()
    assert seen[0][0].shape == () and seen[0][1] is not None
    assert sgm.score_matching_loss(sgm.VP(), MODEL, jnp.ones(4), jr.key(0)).shape == ()
    with pytest.raises(ValueError, match=r"Loss: x has shape \(3,\)"):
        sgm.score_matching_loss(sgm.VP(), MODEL, jnp.ones(3), jr.key(0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NormalLogSNR(std=0.0), "NormalLogSNR: std = 0.0; pass std > 0"),
        (lambda: KarrasWeighting(std=-1.0), "KarrasWeighting: std = -1.0; pass std > 0"),
        (lambda: KarrasWeighting(sigma_data=0.0), "KarrasWeighting: sigma_data = 0.0; pass sigma_data > 0"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
