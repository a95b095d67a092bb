import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import PROCESSES, closed_form

import sgm
from sgm.sde import Cosine, Linear

pytestmark = pytest.mark.quick

each_process = pytest.mark.parametrize("name", PROCESSES)


def times(sde, count=2001):
    """Float32 times over the whole range, dense at both ends."""
    middle = np.linspace(sde.t0, sde.t1, count)
    near = np.geomspace(1e-6, 1, count) * (sde.t1 - sde.t0)
    every = np.concatenate([middle, sde.t0 + near, sde.t1 - near]).astype(np.float32)
    return np.clip(every, np.float32(sde.t0), np.float32(sde.t1))


@each_process
def test_derived_quantities_equal_closed_forms_in_float32(name):
    sde = PROCESSES[name]
    t = times(sde)
    alpha, sigma, f, g2, log_snr = closed_form(name, t)
    # Where t itself is rounded the truth is that of the rounded t; 1e-5 leaves room for a few roundings of B(t).
    close = dict(rtol=2e-5)
    np.testing.assert_allclose(sde.alpha(t), alpha, **close)
    np.testing.assert_allclose(sde.sigma(t), sigma, **close)
    np.testing.assert_allclose(sde.drift(t, jnp.ones_like(t)), f, **close)
    np.testing.assert_allclose(sde.diffusion(t) ** 2, g2, **close)
    np.testing.assert_allclose(sde.log_snr(t), log_snr, rtol=1e-6, atol=2e-5)
    np.testing.assert_allclose(jnp.tan(sde.theta(t)), sigma / alpha, rtol=2e-4)
    np.testing.assert_allclose(sde.rho(t), np.hypot(alpha, sigma), **close)


@each_process
def test_time_inverts_the_noise_level(name):
    sde = PROCESSES[name]
    t = times(sde)
    again = sde.theta(jnp.clip(sde.time(sde.level(t)), sde.t0, sde.t1))
    np.testing.assert_allclose(again, sde.theta(t), rtol=2e-5, atol=3e-7)


@each_process
def test_transitions_compose_and_match_closed_forms(name):
    sde = PROCESSES[name]
    r, s, t = (sde.t0 + fraction * (sde.t1 - sde.t0) for fraction in (0.0, 0.3, 0.9))
    (scale_rs, std_rs), (scale_st, std_st), (scale_rt, std_rt) = (
        sde.transition(a, b) for a, b in ((r, s), (s, t), (r, t))
    )
    np.testing.assert_allclose(scale_rs * scale_st, scale_rt, rtol=1e-5)
    np.testing.assert_allclose((scale_st * std_rs) ** 2 + std_st**2, std_rt**2, rtol=1e-5)
    (alpha_s, sigma_s, *_), (alpha_t, sigma_t, *_) = (closed_form(name, time) for time in (s, t))
    np.testing.assert_allclose(std_st**2, sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2, rtol=1e-4)


@each_process
def test_a_thousand_short_transitions_keep_their_digits(name):
    sde = PROCESSES[name]
    t = np.linspace(sde.t0, sde.t1, 1001).astype(np.float32)
    scale, std = sde.transition(t[:-1], t[1:])
    alpha, sigma, *_ = closed_form(name, t)
    truth = sigma[1:] ** 2 - (alpha[1:] / alpha[:-1] * sigma[:-1]) ** 2
    np.testing.assert_allclose(scale, alpha[1:] / alpha[:-1], rtol=1e-5)
    np.testing.assert_allclose(std**2, truth, rtol=1e-3)


@each_process
def test_ends_by_default(name):
    sde = PROCESSES[name]
    assert float(jnp.tan(sde.theta(sde.t0))) == pytest.approx(1e-3, rel=0.02)
    assert float(jnp.tan(sde.theta(sde.t1))) >= 99.99


@each_process
def test_marginal_is_the_transition_from_data(name):
    sde = PROCESSES[name]
    t, x0 = 0.5 * (sde.t0 + sde.t1), jnp.asarray([1.0, -2.0])
    mean, std = sde.marginal(t, x0)
    np.testing.assert_allclose(mean, sde.alpha(t) * x0)
    np.testing.assert_allclose(std, sde.sigma(t))


def test_sub_vp_std_has_the_integral_once():
    t = 0.4
    integral = 0.1 * t + 9.95 * t**2
    np.testing.assert_allclose(sgm.SubVP().sigma(t), 1 - np.exp(-integral), rtol=1e-6)


@each_process
def test_prior_is_a_density_and_its_samples_follow_it(name):
    prior = PROCESSES[name].prior
    samples = jax.vmap(lambda key: prior.sample(key, (3,)))(jr.split(jr.key(0), 20_000))
    np.testing.assert_allclose(samples.std(), prior.std, rtol=0.02)
    entropy = 3 * (0.5 + 0.5 * np.log(2 * np.pi) + np.log(prior.std))
    np.testing.assert_allclose(-jax.vmap(prior.log_prob)(samples).mean(), entropy, atol=0.03)


@pytest.mark.parametrize("schedule", [Linear(), Linear(1.0, 1.0), Cosine()])
def test_schedules_invert(schedule):
    t = np.concatenate([np.geomspace(1e-5, 1, 500), np.linspace(0.01, 1, 500)]).astype(np.float32)
    np.testing.assert_allclose(schedule.inverse(schedule.integral(t)), t, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linear(2.0, 1.0), "Linear: got beta_min=2.0, beta_max=1.0; pass 0 < beta_min <= beta_max"),
        (lambda: Cosine(0.0), "Cosine: got ratio_min=0.0"),
        (lambda: sgm.VE(sigma_min=-1.0), "VE: got sigma_min=-1.0"),
        (lambda: sgm.VP(t0=0.9, t1=0.1), "VP: got t0=0.9, t1=0.1; pass t0 < t1"),
        (lambda: sgm.Rectified(t0=0.0), "Rectified: at t0=0.0 the log-SNR is inf; pass an end with both"),
        (lambda: sgm.VP(t0=0.0), "VP: at t0=0.0 the log-SNR is inf"),
    ],
)
def test_wrong_settings_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_process_may_be_built_inside_a_trace():
    theta = jax.jit(lambda t: sgm.SubVP(t1=0.9).theta(t))(0.5)
    assert float(theta) == pytest.approx(float(sgm.SubVP().theta(0.5)))


def test_a_process_is_a_plain_pytree():
    sde = sgm.VP()
    assert float(jax.jit(lambda sde, t: sde.sigma(t))(sde, 0.5)) == pytest.approx(float(sde.sigma(0.5)))
    gradient = jax.grad(lambda sde: sde.alpha(0.5))(sde)
    assert float(gradient.schedule.beta_max) == pytest.approx(-0.0625 * float(sde.alpha(0.5)), rel=1e-5)
