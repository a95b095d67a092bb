"""Draws and their log-densities by one solve, beside exact densities and `log_prob` of the same draws."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian, mixture

import sgm
from sgm.sde import Cosine

PROCESSES = {"VP": sgm.VP(), "VE": sgm.VE(), "pure noise": sgm.VP(Cosine(ratio_max=np.inf))}


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
def test_log_p_is_that_of_log_prob(process):
    sde, model = PROCESSES[process], mixture(2)
    x, log_p = sgm.sample_and_log_prob(sde, model, jr.key(0), 16, trace=sgm.Exact())
    assert x.shape == (16, 2) and log_p.shape == (16,)
    np.testing.assert_allclose(log_p, sgm.log_prob(sde, model, x, trace=sgm.Exact()), atol=2e-3)


def test_log_p_is_the_truth_where_the_prior_is():
    sde, model = PROCESSES["pure noise"], mixture(2)
    controller = diffrax.PIDController(rtol=1e-5, atol=1e-5)
    x, log_p = sgm.sample_and_log_prob(sde, model, jr.key(0), 16, trace=sgm.Exact(), controller=controller)
    np.testing.assert_allclose(log_p, jax.vmap(model.marginal(sde, sde.t0).log_prob)(x), atol=5e-4)


@pytest.mark.slow
def test_draws_are_those_of_the_probability_flow():
    x, _ = sgm.sample_and_log_prob(sgm.VP(), gaussian(4), jr.key(3), 8, trace=sgm.Exact())
    flow = sgm.ProbabilityFlow(stepping=diffrax.PIDController(rtol=1e-7, atol=1e-5))
    ends = sgm.sample(sgm.VP(), gaussian(4), jr.key(3), 8, method=flow, saveat=diffrax.SaveAt(t0=True))
    np.testing.assert_allclose(x, ends[:, 0], atol=1e-3)


@pytest.mark.slow
def test_one_example_and_the_error_bar():
    x, result = sgm.sample_and_log_prob(sgm.VP(), gaussian(16), jr.key(1), full=True)
    assert x.shape == (16,) and result.latent.shape == (16,)
    exact = gaussian(16).marginal(sgm.VP(), sgm.VP().t0).log_prob(x)
    assert result.stderr > 0 and abs(float(result.value - exact)) < 5 * float(result.stderr)


@pytest.mark.slow
def test_the_gradient_goes_through_both():
    def mean_log_p(scale):
        model = sgm.model.GaussianMixture(jnp.zeros((1, 2)), scale[None], jnp.ones(1))
        _, log_p = sgm.sample_and_log_prob(sgm.VP(), model, jr.key(0), 4, trace=sgm.Exact())
        return jnp.mean(log_p)

    # -entropy = -2 log(scale) + const, of draws that scale with it.
    assert float(jax.grad(mean_log_p)(jnp.asarray(0.5))) == pytest.approx(-4.0, rel=1e-2)


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="sample_and_log_prob: n = 0; pass n >= 1"):
        sgm.sample_and_log_prob(sgm.VP(), gaussian(2), jr.key(0), 0)
