import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import FOUR, PROCESSES, Shifted, gaussian, mixture, shared_range, slopes

import sgm

MODELS = {"gaussian 2": gaussian(2), "gaussian 16": gaussian(16), "mixture 2": mixture(2), "mixture 16": mixture(16)}


def data(sde, model, n):
    return model.marginal(sde, sde.t0).sample(jr.key(0), n)


def truth(sde, model, x):
    return jax.vmap(model.marginal(sde, sde.t0).log_prob)(x)


@pytest.mark.slow_except("mixture 2-VP")
@pytest.mark.parametrize("process", FOUR)
@pytest.mark.parametrize("name", MODELS)
def test_exact_models_have_their_closed_form_density(process, name):
    sde, model = PROCESSES[process], MODELS[name]
    x = data(sde, model, 200)
    prior = model.marginal(sde, sde.t1)
    result = sgm.log_prob(sde, model, x, trace=sgm.Exact(), prior=prior, full=True)
    assert np.abs(result.value - truth(sde, model, x)).mean() < 1e-3
    np.testing.assert_array_equal(result.stderr, 0)
    assert bool(jnp.all(result.result == diffrax.RESULTS.successful))
    # The standard prior in place of the exact one costs what docs/likelihood.md says: below 0.05 nats here.
    mismatch = np.abs(sgm.log_prob(sde, model, x, trace=sgm.Exact()) - truth(sde, model, x)).mean()
    expected = np.abs(jax.vmap(sde.prior.log_prob)(result.latent) - jax.vmap(prior.log_prob)(result.latent)).mean()
    np.testing.assert_allclose(mismatch, expected, atol=1e-3)
    assert mismatch < 0.05


@pytest.mark.slow
def test_the_density_of_u_is_the_same_under_every_process():
    u, values = mixture(2).sample(jr.key(1), 50), []
    for process in PROCESSES:
        sde = shared_range(process)
        scale = sde.rho(sde.t0)
        values.append(sgm.log_prob(sde, mixture(2), scale * u, trace=sgm.Exact()) + 2 * jnp.log(scale))
    np.testing.assert_allclose(values, np.tile(values[0], (len(values), 1)), atol=2e-3)


@pytest.mark.slow
def test_a_single_probe_has_no_error_bar():
    result = sgm.log_prob(sgm.VP(), gaussian(2), jnp.ones((3, 2)), jr.key(0), trace=sgm.Hutchinson(1), full=True)
    assert bool(jnp.all(jnp.isnan(result.stderr)) & jnp.all(jnp.isfinite(result.value)))


@pytest.mark.slow
def test_latents_are_carried_to_the_end():
    sde, model = sgm.VE(), gaussian(2)
    x = data(sde, model, 2000)
    latent = sgm.log_prob(sde, model, x, trace=sgm.Exact(), full=True).latent
    np.testing.assert_allclose(jnp.cov(latent.T), 1e4 * jnp.eye(2), atol=700)


@pytest.mark.slow_except("solver0")
@pytest.mark.parametrize("solver", [diffrax.Dopri5(), diffrax.Tsit5(), diffrax.Bosh3(), diffrax.Heun()])
def test_evaluations_are_counted(solver):
    calls = []

    class Counting(sgm.model.AbstractModel):
        shape: tuple[int, ...] = (2,)

        def predict(self, level, u, cond=None, key=None):
            jax.debug.callback(lambda level: calls.append(float(level)), level)
            return mixture(2).predict(level, u)

    controller = diffrax.PIDController(rtol=1e-4, atol=1e-4)
    options = {"trace": sgm.Exact(), "controller": controller, "solver": solver, "full": True}
    result = sgm.log_prob(sgm.VP(), Counting(), jnp.ones(2), **options)
    result.value.block_until_ready()
    jax.effects_barrier()
    assert len(calls) == int(result.nfe)


@pytest.mark.slow
def test_one_example_or_many_and_any_batch_axes():
    sde, model = sgm.VP(), mixture(2)
    x = data(sde, model, 6)
    flat = sgm.log_prob(sde, model, x, trace=sgm.Exact())
    shaped = sgm.log_prob(sde, model, x.reshape(2, 3, 2), trace=sgm.Exact(), full=True)
    assert shaped.value.shape == shaped.nfe.shape == (2, 3) and shaped.latent.shape == (2, 3, 2)
    np.testing.assert_allclose(shaped.value.reshape(-1), flat, rtol=1e-5)
    alone = sgm.log_prob(sde, model, x[4], trace=sgm.Exact())
    np.testing.assert_allclose(alone, flat[4], rtol=1e-5)


PARAMS, SEEN = jnp.asarray([[1.0, 2.0], [-1.0, 0.5]]), jnp.asarray([[0.3, 0.1], [0.3, 0.1]])


def under(params):
    return sgm.log_prob(sgm.VP(), Shifted(1.0), SEEN, cond=sgm.Condition(params=params), trace=sgm.Exact())


def test_conditions_reach_the_model():
    expected = -0.5 * jnp.sum((SEEN - PARAMS) ** 2, -1) - jnp.log(2 * jnp.pi)
    np.testing.assert_allclose(under(PARAMS), expected, atol=5e-2)  # The standard prior is off by so much.


@pytest.mark.slow
def test_a_condition_of_all_is_that_of_each():
    np.testing.assert_allclose(under(PARAMS[0])[0], under(PARAMS)[0], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("trace", [sgm.Exact(), sgm.Hutchinson(2)])
def test_gradients_with_respect_to_the_model_agree_with_finite_differences(float64, trace):
    network = sgm.nn.MLP((2,), width=8, depth=1, key=jr.key(0))
    weights, rest = eqx.partition(network, eqx.is_inexact_array)
    weights = jax.tree.map(lambda leaf: 0.3 * jr.normal(jr.key(leaf.size), leaf.shape), weights)
    direction = jax.tree.map(lambda leaf: jr.normal(jr.key(leaf.size + 1), leaf.shape), weights)
    controller = diffrax.PIDController(rtol=1e-11, atol=1e-11)

    def mean(weights):
        model = sgm.ScoreModel(eqx.combine(weights, rest), sgm.model.Karras(0.5), shape=(2,))
        x = jnp.asarray([[0.3, -0.4], [1.0, 0.2]])
        return jnp.mean(sgm.log_prob(sgm.VP(), model, x, jr.key(1), trace=trace, controller=controller))

    by_gradient, by_differences = slopes(mean, weights, direction)
    assert by_gradient == pytest.approx(by_differences, rel=1e-5)


@pytest.mark.slow
def test_the_gradient_with_respect_to_x_is_the_score():
    sde, model = sgm.VP(), mixture(2)
    x, prior = data(sde, model, 20), model.marginal(sde, sde.t1)
    gradient = jax.grad(lambda x: sgm.log_prob(sde, model, x, trace=sgm.Exact(), prior=prior).sum())(x)
    score = jax.vmap(lambda x: model.score(sde, sde.t0, x))(x)
    np.testing.assert_allclose(gradient, score, rtol=2e-3, atol=2e-3 * float(jnp.abs(score).max()))


@pytest.mark.slow
def test_the_gradient_with_respect_to_the_condition_is_the_closed_form():
    params, x = jnp.asarray([[1.0, 2.0], [-1.0, 0.5]]), jnp.asarray([[0.3, 0.1], [0.3, 0.1]])

    def total(params):
        return sgm.log_prob(sgm.VP(), Shifted(0.5), x, cond=sgm.Condition(params=params), trace=sgm.Exact()).sum()

    # The standard prior's part is as small as its mismatch.
    np.testing.assert_allclose(jax.grad(total)(params), (x - params) / 0.25, atol=0.1)


@pytest.mark.slow
def test_the_error_bar_does_no_harm_to_the_gradient():
    """Sign probes of a diagonal Jacobian have no spread, whose root has no finite derivative."""
    model = sgm.model.Gaussian(jnp.zeros(2), jnp.eye(2))
    for trace in (sgm.Hutchinson(2), sgm.Probing((2,), 2)):
        value = lambda x, trace=trace: sgm.log_prob(sgm.VP(), model, x, jr.key(0), trace=trace, full=True).value  # noqa: E731
        np.testing.assert_allclose(jax.grad(value)(jnp.asarray([0.5, -1.0])), [-0.5, 1.0], atol=1e-2)


def test_an_unfinished_solve_is_flagged():
    class Stiff(sgm.model.AbstractModel):
        shape: tuple[int, ...] = (2,)

        def predict(self, level, u, cond=None, key=None):
            return jax.tree.map(lambda part: jnp.where(u > 5, jnp.nan, part), gaussian(2).predict(level, u))

    result = sgm.log_prob(sgm.VP(), Stiff(), jnp.asarray([[0.1, 0.2], [9.0, 9.0]]), trace=sgm.Exact(), full=True)
    assert bool(jnp.isfinite(result.value[0]) & jnp.isnan(result.value[1]))
    assert bool((result.result == diffrax.RESULTS.successful)[0]) and not bool(
        (result.result == diffrax.RESULTS.successful)[1]
    )


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (
            jnp.ones(3),
            {"trace": sgm.Exact()},
            r"log_prob: x has shape \(3,\), but the model is of examples of shape \(2,\)",
        ),
        (jnp.ones((2, 5)), {"trace": sgm.Exact()}, r"log_prob: x has shape \(2, 5\)"),
        (
            jnp.asarray([[1.0, 2.0], [jnp.nan, jnp.inf]]),
            {"trace": sgm.Exact()},
            r"log_prob: 2 of the 4 entries of x are not finite, the first x\[1, 0\] = nan; leave those examples out",
        ),
        (jnp.ones((0, 2)), {"trace": sgm.Exact()}, "the number of examples = 0"),
        (jnp.ones(2), {}, "log_prob: key is None, but Hutchinson draws random probes; pass key="),
    ],
)
def test_wrong_arguments_are_named(x, options, message):
    with pytest.raises(ValueError, match=message):
        sgm.log_prob(sgm.VP(), gaussian(2), x, **options)


@pytest.mark.usefixtures("types_unchecked")
def test_integer_images_are_refused():
    with pytest.raises(ValueError, match=r"log_prob: x has dtype int32, but .* grey levels 0 .* in their own units"):
        sgm.log_prob(sgm.VP(), gaussian(2), jnp.ones(2, jnp.int32), trace=sgm.Exact())


def test_float32_works_in_a_float64_session(float64):
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gaussian(2))
    in_units, x = sgm.model.WithUnits(model, sgm.Units(0.0, 2.0)), jnp.ones((3, 2), jnp.float32)

    @eqx.filter_jit  # within which concrete numbers of double precision promote
    def found(prior):
        return sgm.log_prob(sgm.VP(), in_units, x, trace=sgm.Exact(), prior=prior, full=True)

    for prior in (None, model.marginal(sgm.VP(), 1.0)):
        result = found(prior)
        assert result.value.dtype == result.latent.dtype == jnp.float32
        expected = jax.jit(jax.vmap(model.log_prob))(x / 2) - float(np.log(4))
        np.testing.assert_allclose(result.value, expected, atol=0.1)


def test_the_mismatch_of_the_prior_is_the_divergence_of_two_gaussians():
    x0 = jnp.asarray([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]])
    for sde in PROCESSES.values():
        alpha, sigma, rho = (float(part(sde.t1)) for part in (sde.alpha, sde.sigma, sde.rho))
        expected = 0.5 * ((3 * sigma**2 + alpha**2 * np.sum(x0**2, 1)) / rho**2 - 3 + 6 * np.log(rho / sigma))
        np.testing.assert_allclose(sgm.prior_mismatch(sde, x0), expected, atol=1e-6)
    bound = sgm.prior_mismatch(sgm.VP(), gaussian(2).sample(jr.key(0), 20_000)).mean()
    end = gaussian(2).marginal(sgm.VP(), 1.0)
    x = end.sample(jr.key(1), 20_000)
    divergence = (jax.vmap(end.log_prob)(x) - jax.vmap(sgm.VP().prior.log_prob)(x)).mean()
    assert 0 < float(bound) < 1e-3 and float(divergence) < float(bound) + 3e-4
