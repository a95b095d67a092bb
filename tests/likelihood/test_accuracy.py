import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian, mixture

import sgm
from sgm.likelihood.accuracy import MIN_DOF

SDE = sgm.VP()


def errors(model, accuracy, n=300, **options):
    """Examples' results, and the errors of their values."""
    start = model.marginal(SDE, SDE.t0)
    x = start.sample(jr.key(0), n)
    prior = model.marginal(SDE, SDE.t1)
    result = sgm.log_prob(SDE, model, x, jr.key(1), prior=prior, accuracy=accuracy, full=True, **options)
    return result, np.abs(np.asarray(result.value - jax.vmap(start.log_prob)(x)))


@pytest.mark.slow_except("mixture-0.01")
@pytest.mark.parametrize("accuracy", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("model", [mixture(2), gaussian(16)], ids=["mixture", "Gaussian"])
def test_what_is_asked_for_is_what_is_got(model, accuracy):
    result, error = errors(model, accuracy)
    # An example in a hundred may be beyond single precision, and is then marked.
    assert np.mean(result.converged) > 0.98
    assert np.mean(error <= accuracy) > 0.99
    # The estimate of the error is as large as the error, over examples.
    assert np.mean(error**2) <= np.mean(result.solver_error**2 + result.stderr**2)


@pytest.mark.slow
def test_probes_are_added_until_they_suffice():
    accuracy = 2.0
    result, error = errors(gaussian(64), accuracy, trace=sgm.Hutchinson(4), n=400)
    assert bool(jnp.all(result.converged))
    by_probes = np.asarray(result.stderr > 0)
    assert by_probes.mean() > 0.5
    assert np.all(np.asarray(result.dof)[by_probes] >= MIN_DOF)
    # Those that stop are not those whose standard error is too small by chance.
    assert np.sqrt(np.mean(error[by_probes] ** 2)) < accuracy
    low, high = result.interval(0.95)
    truth = jax.vmap(gaussian(64).marginal(SDE, SDE.t0).log_prob)(
        gaussian(64).marginal(SDE, SDE.t0).sample(jr.key(0), 400)
    )
    assert np.mean((low <= truth) & (truth <= high)) > 0.9


@pytest.mark.slow
def test_those_that_keep_their_probes_are_not_the_lucky_ones():
    """Where the exact trace is cheaper for most, a small standard error by chance is no reason to stop."""
    result, error = errors(gaussian(64), 1.0, trace=sgm.Hutchinson(4), n=400)
    kept = np.asarray(result.stderr > 0)
    assert kept.sum() < 10 or np.sqrt(np.mean(error[kept] ** 2)) < 1.0


@pytest.mark.slow
def test_examples_get_what_each_needs():
    """The harder an example, the smaller its tolerance: evaluations differ, errors do not."""
    easy, hard = jnp.zeros((20, 2)), mixture(2).sample(jr.key(2), 20)
    result = sgm.log_prob(SDE, mixture(2), jnp.concatenate([easy, hard]), accuracy=1e-3, trace=sgm.Exact(), full=True)
    assert len(np.unique(result.nfe)) > 2
    assert bool(jnp.all(result.converged))


def test_what_cannot_be_reached_is_said():
    model = mixture(2)
    x, prior = model.marginal(SDE, SDE.t0).sample(jr.key(0), 300), model.marginal(SDE, SDE.t1)
    with pytest.warns(UserWarning, match=r"log_prob: \d+ of 300 values are not known to accuracy = 1e-09; full=True"):
        sgm.log_prob(SDE, model, x, jr.key(1), prior=prior, accuracy=1e-9)
    result, _ = errors(model, 1e-9)
    assert not bool(jnp.all(result.converged)) and bool(jnp.all(jnp.isfinite(result.value)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(accuracy=0.0), "accuracy = 0.0; pass a number of nats above 0"),
        (dict(accuracy=1e-2, controller=diffrax.PIDController(rtol=1e-3, atol=1e-3)), "pass one of them"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sgm.log_prob(SDE, gaussian(2), jnp.ones(2), jr.key(0), **options)


def test_traces_cannot_choose():
    with pytest.raises(ValueError, match=r"accuracy = 0\.01 inside jax\.jit or jax\.grad"):
        jax.jit(lambda x: sgm.log_prob(SDE, gaussian(2), x, trace=sgm.Exact(), accuracy=1e-2))(jnp.ones(2))
