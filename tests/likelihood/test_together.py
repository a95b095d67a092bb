"""Gradients of the solves of a batch that are taken back together, beside closed forms and Diffrax's own gradients."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian, mixture, slopes

import sgm
from sgm.sde import LearnedLogSNR


def assert_close(tree, expected, rtol, atol=0.0):
    """Each array to `rtol` of its own largest entry."""
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0, atol=atol + rtol * float(jnp.abs(other).max()))


def gradients(function, *arguments):
    """The gradients of a scalar function by the arrays of each argument."""
    arrays, rest = eqx.partition(arguments, eqx.is_inexact_array)
    return jax.grad(lambda arrays: function(*eqx.combine(arrays, rest)))(arrays)


def network(width=8):
    """A network with outputs of unit size."""
    plain = sgm.nn.MLP((2,), width=width, depth=1, key=jr.key(0))
    draw = lambda leaf: 0.3 * jr.normal(jr.key(leaf.size), leaf.shape) if eqx.is_inexact_array(leaf) else leaf  # noqa: E731
    return sgm.ScoreModel(jax.tree.map(draw, plain), sgm.model.Karras(0.5), shape=(2,))


def test_gradients_of_a_mixture_are_those_of_its_density():
    """By its parameters, by x and by the prior, which are all of it."""
    sde, model = sgm.VP(), mixture(2)
    x = model.sample(jr.key(0), 12)

    def by_flow(model, x):
        return jnp.sum(sgm.log_prob(sde, model, x, trace=sgm.Exact(), prior=model.marginal(sde, sde.t1)))

    def exactly(model, x):
        return jnp.sum(jax.vmap(model.marginal(sde, sde.t0).log_prob)(x))

    assert_close(gradients(by_flow, model, x), gradients(eqx.filter_jit(exactly), model, x), rtol=2e-3)


@pytest.mark.slow
def test_gradients_by_a_learned_schedule_are_those_of_the_density():
    """They enter by the ends of the clock and the scales there: between them the flow is the same for all schedules."""
    sde, model = sgm.VP(LearnedLogSNR(3e-2, 30.0, width=4)), mixture(2)
    x = model.sample(jr.key(0), 12)

    def by_flow(sde):
        options = {"trace": sgm.Exact(), "controller": diffrax.PIDController(rtol=1e-6, atol=1e-6)}
        return jnp.sum(sgm.log_prob(sde, model, x, prior=model.marginal(sde, sde.t1), **options))

    def exactly(sde):
        return jnp.sum(jax.vmap(model.marginal(sde, sde.t0).log_prob)(x))

    assert_close(gradients(by_flow, sde), gradients(exactly, sde), rtol=2e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
@pytest.mark.parametrize("adjoint", ["DirectAdjoint", "RecursiveCheckpointAdjoint"])
def test_they_are_the_gradients_of_the_same_steps(float64, adjoint, tolerance):
    """Examples of one batch take different numbers of steps, at the smaller tolerance more than are kept.

    Rounding, of 2e-16, grows by 1/t0^2 = 1e6 on the way, in each of some hundred stages.
    """
    x = jnp.asarray([[0.3, -0.4], [1.0, 0.2], [6.0, -5.0]])
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    one_by_one = getattr(diffrax, adjoint)()

    def value(model, x, adjoint=None):
        options = {"trace": sgm.Hutchinson(1), "controller": controller, "adjoint": adjoint, "full": True}
        result = sgm.log_prob(sgm.VP(), model, x, jr.key(1), **options)
        return jnp.mean(result.value) + jnp.sum(jnp.sin(result.latent)), result.nfe

    _, nfe = value(network(), x)
    assert len(set(nfe.tolist())) == 3 and (int(nfe.max()) > 7 * 64) == (tolerance == 1e-8)
    expected = gradients(lambda *arguments: value(*arguments, one_by_one)[0], network(), x)
    assert_close(gradients(lambda *arguments: value(*arguments)[0], network(), x), expected, rtol=1e-7)


@pytest.mark.slow
def test_they_are_finite_differences(float64):
    weights, rest = eqx.partition(network(), eqx.is_inexact_array)
    direction = jax.tree.map(lambda leaf: jr.normal(jr.key(leaf.size + 1), leaf.shape), weights)
    controller = diffrax.PIDController(rtol=1e-10, atol=1e-10)

    def mean(weights):
        x = jnp.asarray([[0.3, -0.4], [1.0, 0.2], [6.0, -5.0]])
        return jnp.mean(
            sgm.log_prob(
                sgm.VP(), eqx.combine(weights, rest), x, jr.key(1), trace=sgm.Hutchinson(2), controller=controller
            )
        )

    by_gradient, by_differences = slopes(mean, weights, direction)
    assert by_gradient == pytest.approx(by_differences, rel=1e-5)


class NanBeyond(sgm.model.AbstractModel):
    """A mixture that is nan where an entry of u is above 5."""

    mixture: sgm.model.GaussianMixture
    shape: tuple[int, ...] = (2,)

    def predict(self, level, u, cond=None, key=None):
        return jax.tree.map(lambda part: jnp.where(u > 5, jnp.nan, part), self.mixture.predict(level, u))


@pytest.mark.slow
@pytest.mark.parametrize("row", [0, 2])
def test_an_example_that_does_not_finish_leaves_the_others_gradients_as_they_are(row):
    good = jnp.asarray([[0.1, 0.2], [-0.4, 0.3]])
    x = jnp.asarray(np.insert(good, row, 9.0, axis=0))
    sde, model = sgm.VP(LearnedLogSNR(3e-2, 30.0, width=4)), NanBeyond(mixture(2))

    def total(sde, model, x):
        values = sgm.log_prob(sde, model, x, trace=sgm.Exact())
        return jnp.sum(jnp.where(jnp.isnan(values), 0.0, values))

    assert np.flatnonzero(np.isnan(sgm.log_prob(sde, model, x, trace=sgm.Exact()))).tolist() == [row]
    of_sde, of_model, of_x = gradients(total, sde, model, x)
    expected_of_sde, expected, of_good = gradients(total, sde, model, good)
    assert_close((of_sde, of_model), (expected_of_sde, expected), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.delete(of_x, row, axis=0), of_good, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(of_x[row], 0)


@pytest.mark.slow
def test_a_solve_that_is_out_of_steps_is_nan_and_says_so():
    controller = diffrax.PIDController(rtol=1e-4, atol=1e-4, dtmax=1e-4)

    def value(x):
        result = sgm.log_prob(sgm.VP(), gaussian(2), x, trace=sgm.Exact(), controller=controller, full=True)
        return jnp.sum(result.value), result

    (total, result), gradient = jax.value_and_grad(value, has_aux=True)(jnp.ones((2, 2)))
    assert bool(jnp.isnan(total)) and bool(jnp.all(result.result == diffrax.RESULTS.max_steps_reached))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
def test_second_derivatives_are_the_precision():
    sde, model = sgm.VP(), gaussian(2)
    prior = model.marginal(sde, sde.t1)

    def value(x):
        return sgm.log_prob(sde, model, x, trace=sgm.Exact(), prior=prior)

    start = model.marginal(sde, sde.t0)
    exact = jax.hessian(start.log_prob)(jnp.asarray([0.3, -0.2]))
    assert_close(jax.jacfwd(jax.grad(value))(jnp.asarray([0.3, -0.2])), exact, rtol=2e-3)


@pytest.mark.slow
def test_a_call_may_be_mapped_over_and_solved_in_groups():
    means, x = jnp.asarray([[0.0, 1.0], [-0.5, 0.2], [2.0, 0.0]]), jr.normal(jr.key(0), (5, 2))
    sde = sgm.VP()

    def of(mean):
        return sgm.model.GaussianMixture(mean[None], jnp.asarray([0.5]), jnp.ones(1))

    def total(mean, trace):
        return jnp.sum(sgm.log_prob(sde, of(mean), x, trace=trace, prior=of(mean).marginal(sde, sde.t1)))

    exact = jax.vmap(jax.grad(lambda mean: jnp.sum(jax.vmap(of(mean).marginal(sde, sde.t0).log_prob)(x))))(means)
    trace = sgm.Exact(chunk=4)  # which solves two examples at a time
    assert_close(jax.vmap(jax.grad(lambda mean: total(mean, trace)))(means), exact, rtol=2e-3)


@pytest.mark.slow
def test_forward_mode_is_as_before():
    def value(mean, adjoint):
        model = sgm.model.GaussianMixture(mean[None], jnp.asarray([0.5]), jnp.ones(1))
        return sgm.log_prob(sgm.VP(), model, jnp.asarray([[0.2, 0.1]]), trace=sgm.Exact(), adjoint=adjoint)[0]

    mean = jnp.asarray([0.4, -0.3])
    forwards = jax.jacfwd(lambda mean: value(mean, diffrax.ForwardMode()))(mean)
    np.testing.assert_allclose(forwards, jax.grad(lambda mean: value(mean, None))(mean), rtol=1e-4)


@pytest.mark.slow
def test_the_compiler_has_nothing_to_complain_of(capfd):
    """Nor does it take the time for it: a constant that is broadcast sent its simplifier round in circles."""
    jax.config.update("jax_enable_compilation_cache", False)  # What is found there says nothing.
    try:
        sgm.log_prob(sgm.VP(), network(), jnp.ones((7, 2)), jr.key(1)).block_until_ready()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert "circular" not in capfd.readouterr().err
