"""The flow both ways, and samples that begin at a latent or at a noised example."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import PROCESSES

import sgm
from sgm.model import Gaussian, GaussianMixture, WithUnits
from sgm.sde import LinearBetas
from sgm.solve import ChainGrid

ALL = {**PROCESSES, "pure noise": sgm.Rectified(t1=1.0), "chain": sgm.DiscreteChain(LinearBetas(100, 1e-3, 0.2))}
each_process = pytest.mark.parametrize("sde", ALL.values(), ids=ALL.keys())
MEAN, VARIANCE = np.asarray([0.3, -0.2, 0.1]), np.asarray([1.0, 0.25, 4.0])
MODES = GaussianMixture(jnp.asarray([[-1.0, 0.5], [1.0, 0.0]]), jnp.asarray([0.2, 0.4]), jnp.asarray([0.4, 0.6]))


def flow_of_gaussian(sde, variance, z):
    """x at t0 and at t1 on one path of the flow of N(MEAN, variance), in float64."""
    ends = []
    for t in (sde.t0, sde.t1):
        alpha, sigma = (float(part(t)) for part in (sde.alpha, sde.sigma))
        ends.append(alpha * MEAN + np.sqrt(alpha**2 * variance + sigma**2) * z)
    return ends


@pytest.mark.slow_except("*-VE")
@each_process
@pytest.mark.parametrize("std", [1.0, 1e-2])
def test_latents_of_a_gaussian_are_those_of_its_closed_form(sde, std):
    variance, z = std**2 * VARIANCE, np.random.default_rng(0).normal(size=(8, 3))
    model = Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.diag(jnp.asarray(variance, jnp.float32)))
    x, expected = flow_of_gaussian(sde, variance, z)
    x = jnp.asarray(x, jnp.float32)
    latent = sgm.encode(sde, model, x)
    rho = float(sde.rho(sde.t1))
    np.testing.assert_allclose(latent / rho, expected / rho, atol=1e-3)
    width = np.hypot(float(sde.alpha(sde.t0)) * np.sqrt(variance), float(sde.sigma(sde.t0)))
    np.testing.assert_allclose(sgm.decode(sde, model, latent) / width, x / width, rtol=0, atol=1e-3)


@pytest.mark.slow_except("chain")
@each_process
def test_decoding_undoes_encoding(sde):
    x = jnp.stack([jnp.linspace(-1.3, 1.2, 6), jnp.linspace(0.9, -0.4, 6)], axis=1)
    latent = sgm.encode(sde, MODES, x)
    np.testing.assert_allclose(sgm.decode(sde, MODES, latent), x, atol=2e-4)
    two_axes = sgm.decode(sde, MODES, latent.reshape(2, 3, 2))
    np.testing.assert_allclose(two_axes, x.reshape(2, 3, 2), atol=2e-4)


@pytest.mark.slow
def test_one_example_has_the_latent_that_it_has_in_a_batch():
    x = jnp.asarray([[0.2, -0.3], [1.1, 0.4]])
    latent = sgm.encode(sgm.VP(), MODES, x)
    np.testing.assert_allclose(sgm.encode(sgm.VP(), MODES, x[1]), latent[1], atol=1e-3)
    np.testing.assert_allclose(sgm.decode(sgm.VP(), MODES, latent[1]), x[1], atol=2e-4)


@pytest.mark.slow
def test_a_latent_is_that_of_log_prob_in_any_units():
    model = WithUnits(MODES, sgm.Units(jnp.asarray([300.0, -2.0]), jnp.asarray([50.0, 1e-3])))
    x = jnp.asarray([[280.0, -2.0005], [340.0, -1.9999]])
    latent = sgm.encode(sgm.VP(), model, x)
    of_density = sgm.log_prob(sgm.VP(), model, x, trace=sgm.Exact(), full=True).latent
    np.testing.assert_allclose(latent, of_density, atol=1e-3)
    np.testing.assert_allclose(sgm.decode(sgm.VP(), model, latent), x, rtol=1e-4)


@pytest.mark.slow
def test_latents_have_derivatives():
    """d x / d latent of a Gaussian is the ratio of its standard deviations."""
    sde, model = sgm.VP(), Gaussian(jnp.zeros(2), jnp.diag(jnp.asarray([0.25, 0.36])))
    slope = jax.jacfwd(lambda latent: sgm.decode(sde, model, latent, adjoint=diffrax.ForwardMode()))
    s0, s1 = (jnp.sqrt(jnp.asarray([0.25, 0.36]) * sde.alpha(t) ** 2 + sde.sigma(t) ** 2) for t in (sde.t0, sde.t1))
    np.testing.assert_allclose(slope(jnp.asarray([0.3, -1.0])), jnp.diag(s0 / s1), atol=1e-3)
    back = jax.grad(lambda x: sgm.encode(sde, model, x)[0])(jnp.asarray([0.3, -1.0]))
    np.testing.assert_allclose(back, [(s1 / s0)[0], 0.0], atol=2e-3)


def test_a_sample_begins_at_a_latent():
    sde, key = sgm.VP(), jr.key(3)
    latent = jnp.stack([sde.prior.sample(jr.split(each)[0], (2,)) for each in jr.split(key, 4)])
    method = sgm.DDIM(20)
    np.testing.assert_allclose(
        sgm.sample(sde, MODES, key, x1=latent, method=method), sgm.sample(sde, MODES, key, 4, method=method), atol=1e-5
    )
    path = sgm.sample(sde, MODES, key, x1=latent, method=method, saveat=diffrax.SaveAt(ts=jnp.asarray([sde.t1])))
    np.testing.assert_allclose(path[:, 0], latent, atol=1e-6)


@pytest.mark.slow_except("chain")
@each_process
def test_a_sample_begins_at_a_noised_example(sde):
    """Draws given x_t of a Gaussian have its conditional mean and variance, here those of independent entries."""
    t = float(sde.time(jnp.asarray(-0.2)))
    if isinstance(sde, sgm.DiscreteChain):
        t = float(round(t))
    model = WithUnits(
        Gaussian(jnp.asarray([0.5]), jnp.asarray([[0.49]])), sgm.Units(jnp.asarray(10.0), jnp.asarray(2.0))
    )
    noised = jnp.full((4000, 1), 10.0 + 2.0 * 1.1)
    x = sgm.sample(sde, model, jr.key(0), start=(t, noised), method=sgm.EulerMaruyama(100))
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    gain = alpha * 0.49 / (alpha**2 * 0.49 + sigma**2)
    mean, variance = 0.5 + gain * (1.1 - alpha * 0.5), 0.49 * (1 - alpha * gain)
    assert abs(float(x.mean()) - (10 + 2 * mean)) < 4 * 2 * (variance / 4000) ** 0.5 + 0.01
    assert float(x.var()) == pytest.approx(4 * variance, rel=0.12)


def test_a_start_from_outside_of_a_trace_may_be_used_within():
    start = (jnp.asarray(0.5), jnp.zeros(2))
    draw = lambda key: sgm.sample(sgm.VP(), MODES, key, method=sgm.DDIM(3), start=start)  # noqa: E731
    assert jax.eval_shape(draw, jr.key(0)).shape == (2,)


def test_a_chain_starts_at_one_of_its_own_steps():
    chain = ALL["chain"]
    method = sgm.Ancestral(39, grid=ChainGrid())
    x = sgm.sample(chain, MODES, jr.key(0), start=(40.0, jnp.zeros((3, 2))), method=method)
    assert x.shape == (3, 2) and bool(jnp.all(jnp.isfinite(x)))
    with pytest.raises(ValueError, match="steps = 40, but from k = 40 to 1 there are 39"):
        sgm.sample(chain, MODES, jr.key(0), start=(40.0, jnp.zeros((3, 2))), method=sgm.Ancestral(40, grid=ChainGrid()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x1": jnp.zeros((3, 2)), "start": (0.5, jnp.zeros((3, 2)))}, "both x1 and start are given"),
        ({"x1": jnp.zeros((3, 2)), "n": 4}, r"n = 4, but the paths begin from batch axes \(3,\)"),
        ({"x1": jnp.zeros((3, 5))}, r"sample: x1: x has shape \(3, 5\)"),
        ({"x1": jnp.full((3, 2), jnp.nan)}, "6 of the 6 entries of x1 are not finite"),
        ({"start": (2.0, jnp.zeros((3, 2)))}, r"sample: start: t = 2.0 lies outside \[t0, t1\]"),
        ({"start": (1e-5, jnp.zeros((3, 2)))}, "pass t > t0, from which there is a step"),
    ],
)
def test_wrong_starts_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sgm.sample(sgm.VP(), MODES, jr.key(0), **options)
