import importlib
import re
import sys

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from truth import Shifted, moments_agree

import sgm
from sgm.interop.numpyro import Density
from sgm.model import Gaussian
from sgm.training import Adam

# NumPyro and optax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

MEAN, COV = np.asarray([1.0, -2.0], np.float32), np.asarray([[1.0, 0.6], [0.6, 0.8]], np.float32)
EXACT = Gaussian(jnp.asarray(MEAN), jnp.asarray(COV))
# So much noise at t1 that the standard prior stands for the exact one.
SDE = sgm.VP(sgm.sde.Cosine(ratio_max=1e4))


def test_log_prob_and_its_gradient_are_the_closed_form():
    density, x = Density(SDE, EXACT), EXACT.sample(jr.key(0), 6).reshape(2, 3, 2)
    found = density.log_prob(x)
    assert found.shape == (2, 3) and jax.eval_shape(density.log_prob, x[0, 0]).shape == ()
    np.testing.assert_array_equal(found, sgm.log_prob(SDE, EXACT, x, trace=sgm.Exact()))
    marginal = EXACT.marginal(SDE, SDE.t0)
    exact = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(marginal.log_prob))))(x)
    np.testing.assert_allclose(found, exact[0], atol=2e-3)
    slope = jax.jit(jax.grad(lambda x: density.log_prob(x).sum()))(x)
    np.testing.assert_allclose(slope, exact[1], atol=2e-3)


@pytest.mark.slow
def test_gradients_forwards_are_those_backwards():
    density, x = Density(SDE, EXACT, adjoint=diffrax.ForwardMode()), jnp.asarray([0.3, -1.0])
    expected = jax.grad(EXACT.marginal(SDE, SDE.t0).log_prob)(x)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(density.log_prob))(x), expected, atol=2e-3)


def test_draws_have_the_shapes_and_the_moments_of_the_model():
    density = Density(SDE, EXACT)
    assert density.event_shape == (2,) and density.batch_shape == () and density.support.event_dim == 1
    assert jax.eval_shape(density.sample, jr.key(0)).shape == (2,)
    x = density.sample(jr.key(1), (20, 100))
    assert x.shape == (20, 100, 2)
    moments_agree(np.asarray(x.reshape(-1, 2)), EXACT, 2000)


@pytest.mark.slow
def test_the_batch_axes_of_the_condition_are_the_batch_shape():
    params = jnp.asarray([[[1.0, 2.0]], [[-1.0, 0.5]], [[0.0, 0.0]]])  # (3, 1, 2)
    density = Density(SDE, Shifted(0.5), sgm.Condition(params=params))
    assert density.batch_shape == (3, 1) and density.shape((4,)) == (4, 3, 1, 2)
    x = density.sample(jr.key(0), (400,))
    assert x.shape == (400, 3, 1, 2)
    np.testing.assert_allclose(x.mean(0), params, atol=5 * 0.5 / 20)
    value = jnp.asarray([0.3, 0.1])
    expected = -0.5 * jnp.sum(((value - params) / 0.5) ** 2, -1) - jnp.log(2 * jnp.pi * 0.25)
    np.testing.assert_allclose(density.log_prob(value), expected, atol=5e-3)
    np.testing.assert_allclose(
        density.log_prob(jnp.tile(value, (5, 3, 4, 1))), jnp.tile(expected, (5, 1, 4)), atol=5e-3
    )


@pytest.mark.slow
def test_a_likelihood_has_the_gradient_of_the_closed_form_by_its_condition():
    observed = jnp.asarray([0.3, 0.1])

    def model():
        theta = numpyro.sample("theta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("x", Density(SDE, Shifted(0.5), sgm.Condition(params=theta)), obs=observed)

    def joint(theta):
        return numpyro.infer.util.log_density(model, (), {}, {"theta": theta})[0]

    theta = jnp.asarray([1.0, -0.5])
    value, slope = jax.value_and_grad(joint)(theta)
    normal = jax.scipy.stats.norm.logpdf
    assert float(value) == pytest.approx(float(normal(theta).sum() + normal(observed, theta, 0.5).sum()), abs=5e-3)
    np.testing.assert_allclose(slope, -theta + (observed - theta) / 0.25, atol=5e-3)


def test_it_goes_through_jit_as_an_argument():
    network = eqx.nn.MLP(2, 2, 8, 1, activation=jax.nn.tanh, key=jr.key(0))  # whose activation is no array

    class Plain(sgm.model.AbstractModel):
        network: eqx.nn.MLP
        shape: tuple[int, ...] = (2,)

        def predict(self, level, u, cond=None, key=None):
            return sgm.model.from_velocity(level, u, 0.1 * self.network(u) + cond.params)

    density = Density(SDE, Plain(network), sgm.Condition(params=jnp.asarray([1.0, 2.0])))
    found = jax.jit(lambda density, x: density.log_prob(x))(density, jnp.ones(2))
    assert float(found) == pytest.approx(float(density.log_prob(jnp.ones(2))), rel=1e-5)


@pytest.mark.slow
def test_the_probes_are_the_same_at_each_call():
    density, x = Density(SDE, EXACT, trace=sgm.Hutchinson(2), key=jr.key(3)), jnp.ones((4, 2))
    np.testing.assert_array_equal(density.log_prob(x), density.log_prob(x))
    with pytest.raises(ValueError, match="key is None, but Hutchinson draws random probes"):
        Density(SDE, EXACT, trace=sgm.Hutchinson(2))


@pytest.mark.usefixtures("types_unchecked")
def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="Density: the first argument is the model Gaussian"):
        Density(EXACT, SDE)
    with pytest.raises(ValueError, match=r"Density: the parts of cond have batch axes \[\(\), \(3,\)\]"):
        Density(SDE, Shifted(0.5), sgm.Condition(params=jnp.ones((3, 2)), label=1))
    network = sgm.nn.MLP((2,), 8, 1, conditioning=sgm.nn.Conditioning(params=3), key=jr.key(0))
    with pytest.raises(ValueError, match="Density: cond has no parts, but the network was built for `params`"):
        Density(SDE, sgm.ScoreModel(network, shape=(2,)))
    with pytest.raises(ValueError, match="Density: cond has `observed`, but an example with observed entries has no"):
        Density(SDE, EXACT, sgm.Condition(observed=jnp.asarray([1.0, jnp.nan])))
    for options, message in (
        ({"cond": 3}, r"cond = 3; pass an instance such as sgm.Condition\(params"),
        ({"solver": sgm.DDIM(3)}, "solver is a DDIM; pass an instance such as diffrax.Dopri5"),
        ({"controller": 3}, "controller = 3; pass an instance such as diffrax.PID"),
        ({"controller": diffrax.ConstantStepSize()}, "controller is a ConstantStepSize; pass"),
        ({"adjoint": 3}, "adjoint = 3; pass an instance such as diffrax.ForwardMode"),
    ):
        with pytest.raises(TypeError, match=f"Density: {message}"):
            Density(SDE, EXACT, **options)


def test_values_of_another_shape_are_named():
    for shape in ((), (1,), (5, 1), (5, 3)):
        message = rf"Density: x has shape {re.escape(str(shape))}, but the model is of examples of shape \(2,\)"
        with pytest.raises(ValueError, match=message):
            Density(SDE, EXACT).log_prob(jnp.ones(shape))


def test_without_numpyro_the_error_says_how_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "numpyro"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "sgm.interop.numpyro")
    with pytest.raises(ImportError, match=r"sgm\.interop\.numpyro: NumPyro is not installed; pip install numpyro\."):
        importlib.import_module("sgm.interop.numpyro")


STD, OBSERVED = 0.5, np.asarray([2.0, -2.5], np.float32)


def nuts(sde, prior, key):
    """4800 draws of theta given y ~ N(theta, STD^2), of which about 3600 are effective."""
    density = Density(sde, prior, adjoint=diffrax.ForwardMode())

    def model():
        theta = numpyro.sample("theta", density)
        numpyro.sample("y", dist.Normal(theta, STD).to_event(1), obs=OBSERVED)

    kernel = NUTS(model, forward_mode_differentiation=True)
    chains = {"num_chains": 16, "chain_method": "vectorized", "progress_bar": False}
    sampler = MCMC(kernel, num_warmup=100, num_samples=400, **chains)
    sampler.run(key)
    return sampler.get_samples(group_by_chain=True)["theta"]


def agrees_with_the_conjugate_posterior(theta):
    cov = np.linalg.inv(np.linalg.inv(COV) + np.eye(2) / STD**2)
    mean, std = cov @ (np.linalg.inv(COV) @ MEAN + OBSERVED / STD**2), np.sqrt(np.diag(cov))
    # Three standard errors of the mean are 5% of a standard deviation.
    assert numpyro.diagnostics.effective_sample_size(np.asarray(theta)).min() > 3600
    draws = np.asarray(theta).reshape(-1, 2)
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean), 0.05 * std)
    np.testing.assert_array_less(np.abs(draws.std(0) - std), 0.05 * std)


@pytest.mark.slow
def test_nuts_draws_the_conjugate_posterior_of_an_exact_prior():
    agrees_with_the_conjugate_posterior(nuts(SDE, EXACT, jr.key(0)))


@pytest.mark.slow
def test_nuts_draws_the_conjugate_posterior_of_a_trained_prior():
    draws = np.random.default_rng(0).multivariate_normal(MEAN, COV, 50_000).astype(np.float32)
    data = sgm.data.Arrays(draws)
    model = sgm.ScoreModel(sgm.nn.MLP((2,), 64, 2, key=jr.key(0)), sgm.model.Karras(1.0), data=data)
    how = {"steps": 600, "batch_size": 1024, "optimiser": Adam(3e-3, warmup=50), "average_decay": 0.99}
    _, model, _ = sgm.train(SDE, model, data, jr.key(1), **how, progress=False)
    agrees_with_the_conjugate_posterior(nuts(SDE, model, jr.key(2)))
