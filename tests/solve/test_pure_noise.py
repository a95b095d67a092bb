"""Training and sampling where a process ends in pure noise."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import Brightness

import sgm
from sgm.model import Denoised, Noise, Velocity
from sgm.sde import Cosine, DiscreteChain, Rectified, linear_betas
from sgm.training.objective import Squared, SquaredVelocity
from sgm.training.times import NormalLogSNR, UniformLogSNR, UniformTime
from sgm.training.weightings import KarrasWeighting, LikelihoodWeighting, UniformWeighting

COSINE = sgm.VP(Cosine(ratio_max=math.inf))
ENDS = {
    "Cosine": COSINE,
    "Rectified": Rectified(t1=1.0),
    "chain": DiscreteChain(np.append(linear_betas(100)[:-1], 1.0)),
}
NETWORK = sgm.nn.MLP((2,), 8, 1, key=jr.key(0))


@pytest.mark.slow_except(
    "UniformTime-UniformWeighting-*", "UniformLogSNR-LikelihoodWeighting-*", "NormalLogSNR-KarrasWeighting-*"
)
@pytest.mark.parametrize("process", ENDS)
@pytest.mark.parametrize("weighting", [UniformWeighting(), LikelihoodWeighting(), KarrasWeighting()], ids=type)
@pytest.mark.parametrize("times", [UniformTime(), UniformLogSNR(), NormalLogSNR()], ids=type)
def test_losses_and_their_gradients_are_finite(process, weighting, times):
    model = sgm.ScoreModel(NETWORK, Velocity(), shape=(2,))

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(model):
        return sgm.score_matching_loss(
            ENDS[process], model, jnp.ones((64, 2)), jr.key(1), weighting=weighting, times=times, objective=Squared()
        )

    value, gradient = loss(model)
    assert 0 < float(value) < math.inf
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_the_velocity_counts_at_pure_noise():
    model = sgm.ScoreModel(NETWORK, Denoised(), shape=(2,))
    x0, noise = jnp.asarray([2.0, 4.0]), jnp.ones(2)
    estimate = model.predict(jnp.asarray(math.inf), noise)  # A new network: E[x0] = 0.
    assert float(Squared().error(COSINE, jnp.asarray(math.inf), x0, noise, estimate)) == 0
    assert float(SquaredVelocity().error(COSINE, jnp.asarray(math.inf), x0, noise, estimate)) == pytest.approx(10)


def test_what_has_no_finite_loss_is_refused():
    x, how = jnp.ones((4, 2)), {"objective": SquaredVelocity(), "weighting": LikelihoodWeighting()}
    with pytest.raises(ValueError, match=r"SquaredVelocity: under LikelihoodWeighting the loss is infinite, .* pass"):
        sgm.score_matching_loss(COSINE, sgm.ScoreModel(NETWORK, Velocity(), shape=(2,)), x, jr.key(0), **how)
    with pytest.raises(ValueError, match=r"Loss: .*pure noise"):
        sgm.score_matching_loss(COSINE, sgm.ScoreModel(NETWORK, Noise(), shape=(2,)), x, jr.key(0))


@pytest.mark.slow_except("DDIM")
@pytest.mark.parametrize("method", [sgm.DPMSolverPP(20), sgm.DDIM(20)], ids=["DPMSolverPP", "DDIM"])
def test_brightness_is_right_where_the_process_ends_in_pure_noise(method):
    def bias(sde):
        """Of the mean of samples. They are affine in the noise they start from, so that the fit's value at 0 has it."""
        model = Brightness(jnp.asarray(1.0), jnp.asarray(0.3), (64, 64, 1))
        saveat = diffrax.SaveAt(ts=jnp.asarray([sde.t1, sde.t0]))
        ends = np.mean(sgm.sample(sde, model, jr.key(0), 16, method=method, saveat=saveat), axis=(2, 3, 4))
        start, end = np.float64(ends).T
        return np.polyfit(start, end, 1)[1] - 1

    assert abs(bias(COSINE)) < 0.005
    # The default VP has not forgotten the mean at t1, where its prior has none of it.
    assert bias(sgm.VP()) < -0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [sgm.DPMSolverPP(20), sgm.DDIM(20), sgm.EDMHeun(20), sgm.ProbabilityFlow()], ids=type
)
def test_a_process_that_is_traced_ends_in_pure_noise_as_well(method):
    model = sgm.model.Gaussian(jnp.asarray([0.3, -0.2]), jnp.diag(jnp.asarray([0.5, 1.5])))

    def draw(t1):
        return sgm.sample(Rectified(t1=t1), model, jr.key(0), 64, method=method)

    traced = jax.jit(draw)
    for t1 in (1.0, 0.999):
        np.testing.assert_allclose(traced(t1), draw(t1), atol=2e-5)


def test_a_stochastic_method_of_a_traced_process_draws_its_gaussian():
    model = sgm.model.Gaussian(jnp.asarray([0.3, -0.2]), jnp.diag(jnp.asarray([0.5, 1.5])))
    draw = jax.jit(lambda t1: sgm.sample(Rectified(t1=t1), model, jr.key(0), 8000, method=sgm.EulerMaruyama(100)))
    x = np.asarray(draw(1.0))
    np.testing.assert_allclose(x.mean(axis=0), [0.3, -0.2], atol=0.06)
    np.testing.assert_allclose(x.var(axis=0), [0.5, 1.5], rtol=0.08)
