"""Ways to draw from a posterior, held to posteriors known in closed form."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal

import sgm
from sgm.model import Gaussian, GaussianMixture, WithUnits
from sgm.posterior import (
    DAPS,
    DPS,
    MMPS,
    TMPD,
    Custom,
    Exactly,
    Inpainting,
    Linear,
    Mask,
    MatchedDenoising,
    Nonlinear,
    PiGDM,
    Poisson,
    SplitGibbs,
    ToldTransitions,
    TwistedSMC,
)

SDE, DIM, DRAWS = sgm.VP(), 4, 2000
COV = 0.8 * np.exp(-np.abs(np.subtract.outer(np.arange(DIM), np.arange(DIM))) / 2)
MEAN = np.asarray([0.3, -0.2, 0.0, 0.1])
UNITS = sgm.Units(2.0, 3.0)
PLAIN = Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.asarray(COV, jnp.float32))
MODEL = WithUnits(PLAIN, UNITS)  # N(2 + 3 MEAN, 9 COV)
A = np.asarray([[1.0, 0.5, 0.0, -0.3], [0.0, 0.2, 1.0, 0.4]])
STD = 0.6
Y = np.asarray([[3.1, 1.7], [0.4, 4.2]])


def operator(x):
    return jnp.asarray(A, jnp.float32) @ x


def posterior(y, matrix=A, std=STD):
    """Mean, covariance and log-evidence of MODEL given y = matrix x + std noise, in the data's units, in float64."""
    mean, cov = 2 + 3 * MEAN, 9 * COV
    total = matrix @ cov @ matrix.T + std**2 * np.eye(len(matrix))
    gain, residual = cov @ matrix.T @ np.linalg.inv(total), y - matrix @ mean
    log_evidence = -0.5 * (residual @ np.linalg.solve(total, residual) + np.linalg.slogdet(2 * np.pi * total)[1])
    return mean + gain @ residual, cov - gain @ matrix @ cov, log_evidence


EVIDENCE = Linear(operator, jnp.asarray(Y, jnp.float32), STD)


def gaps(x, y=Y, matrix=A, std=STD):
    """Error of the mean in posterior standard deviations, and ratios of standard deviations, of each observation."""
    means, covs, _ = zip(*(posterior(each, matrix, std) for each in y), strict=True)
    stds = np.sqrt(np.stack([np.diag(cov) for cov in covs]))
    x = np.asarray(x, np.float64)
    return (x.mean(axis=1) - np.stack(means)) / stds, x.std(axis=1) / stds


# Of each method, how far means and standard deviations are off: 0.02 and 0.016 are the errors of so many draws, of half
# of which those of 0.1 and more are measured.
METHODS = {
    "MMPS": (MMPS(), 0.08, 0.06),
    "MMPS by Heun": (MMPS(sampler=sgm.EDMHeun(30)), 0.08, 0.06),
    "PiGDM": (PiGDM(), 0.4, 0.1),
    "TMPD": (TMPD(), 0.4, 0.1),
    "DAPS": (DAPS(), 0.3, 0.3),
    "SplitGibbs": (SplitGibbs(), 0.15, 0.1),
    "TwistedSMC": (TwistedSMC(particles=256), 0.12, 0.1),
    "TwistedSMC of white data": (TwistedSMC(particles=512, most_products=0), 0.15, 0.1),
}


@pytest.mark.slow_except("MMPS", "PiGDM", "SplitGibbs", "TwistedSMC")
@pytest.mark.parametrize(("method", "mean", "std"), METHODS.values(), ids=METHODS.keys())
def test_draws_have_the_posterior_of_a_gaussian(method, mean, std):
    draws = DRAWS if std < 0.1 else DRAWS // 2
    x = sgm.sample_posterior(SDE, MODEL, EVIDENCE, jr.key(0), draws, method=method)
    assert x.shape == (2, draws, DIM)
    offsets, ratios = gaps(x)
    assert np.max(np.abs(offsets)) < mean and np.max(np.abs(ratios - 1)) < std


def test_the_guided_estimate_of_mmps_is_that_of_the_posterior():
    mean, cov, _ = posterior(Y[0])
    exact = WithUnits(Gaussian(jnp.asarray((mean - 2) / 3, jnp.float32), jnp.asarray(cov / 9, jnp.float32)), UNITS)
    found, expected = guided_estimates(Linear(operator, Y[0], STD)), estimates(exact)
    np.testing.assert_allclose(found.denoised, expected.denoised, atol=2e-4)
    sines = np.sin(np.arctan(np.exp(LEVELS)))[:, None]
    assert np.all(np.abs(found.velocity - expected.velocity) < 2e-4 / sines)


LEVELS = np.asarray([-2.0, 0.0, 3.0, np.inf], np.float32)


def estimates(model):
    """At a few levels."""
    u = jnp.asarray([0.3, -1.0, 0.4, 0.2])
    return jax.jit(jax.vmap(lambda level: model.predict(level, u)))(LEVELS)


def guided_estimates(evidence):
    return estimates(MMPS().guide(MODEL, evidence))


WITH_GAPS = Linear(lambda x: x, jnp.asarray([3.0, jnp.nan, 1.0, jnp.nan]), STD)
SEEN = Linear(Mask(np.asarray([True, False, True, False])), jnp.asarray([3.0, 1.0]), STD)


@pytest.mark.parametrize(
    ("evidence", "same"),
    [(WITH_GAPS, SEEN), (Nonlinear(operator, Y[0], STD), Linear(operator, Y[0], STD))],
    ids=["nan", "nonlinear"],
)
def test_the_guided_estimate_is_that_of_the_same_evidence_in_another_form(evidence, same):
    found, expected = map(guided_estimates, (evidence, same))
    np.testing.assert_allclose(found.denoised, expected.denoised, atol=1e-5)
    np.testing.assert_allclose(found.noise, expected.noise, atol=1e-4)


@pytest.mark.slow
def test_log_prob_of_the_guided_model_is_the_density_of_the_posterior():
    mean, cov, _ = posterior(Y[0])
    x = jnp.asarray(np.random.default_rng(0).multivariate_normal(mean, cov, 3), jnp.float32)
    guided = MMPS().guide(MODEL, Linear(operator, Y[0], STD))
    found = sgm.log_prob(SDE, guided, x, trace=sgm.Exact())
    np.testing.assert_allclose(found, multivariate_normal.logpdf(x, mean, cov), atol=0.02)


@pytest.mark.slow
def test_each_observation_is_that_of_its_own_call():
    method, key = MMPS(sampler=sgm.DDIM(20)), jr.key(3)
    x = sgm.sample_posterior(SDE, MODEL, EVIDENCE, key, 1, method=method)
    keys = jr.split(key, 2)
    assert x.shape == (2, 1, DIM)
    for place in range(2):
        alone = sgm.sample(
            SDE, method.guide(MODEL, Linear(operator, Y[place], STD)), keys[place], method=method.sampler
        )
        # Each example has its own key, and a single one starts from the noise of that key.
        np.testing.assert_allclose(x[place, 0], alone, atol=1e-3)
    assert sgm.sample_posterior(SDE, MODEL, Linear(operator, Y[0], STD), key, method=method).shape == (DIM,)


@pytest.mark.slow
def test_draws_have_a_derivative_by_the_observation():
    """The mean of a Gaussian's posterior moves with y by the gain."""
    method = MMPS(sampler=sgm.DDIM(50))

    def mean(y):
        draws = sgm.sample_posterior(SDE, MODEL, Linear(operator, y, STD), jr.key(0), 4, method=method)
        return jnp.sum(jnp.mean(draws, axis=0))

    gain = 9 * COV @ A.T @ np.linalg.inv(9 * A @ COV @ A.T + STD**2 * np.eye(2))
    np.testing.assert_allclose(jax.grad(mean)(jnp.asarray(Y[0], jnp.float32)), gain.sum(axis=0), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", [MMPS(), SplitGibbs(), DAPS()], ids=lambda method: type(method).__name__)
def test_entries_known_exactly_are_so_and_the_others_have_their_posterior(method):
    mask, known = np.asarray([True, False, True, False]), np.asarray([[1.0, 0.0, 4.0, 0.0], [2.5, 0.0, 1.0, 0.0]])
    x = sgm.sample_posterior(SDE, MODEL, Exactly(mask, known), jr.key(0), DRAWS, method=method)
    np.testing.assert_array_equal(
        x[:, :, mask], np.broadcast_to(known[:, None, mask], (2, DRAWS, 2)).astype(np.float32)
    )
    seen = np.eye(DIM)[mask]
    means = np.stack([posterior(each[mask], seen, 1e-3)[0] for each in known])
    std = np.sqrt(np.diag(posterior(known[0][mask], seen, 1e-3)[1]))[~mask]
    limit = 0.1 if isinstance(method, MMPS) else 0.4
    np.testing.assert_allclose(np.asarray(x).mean(axis=1)[:, ~mask], means[:, ~mask], atol=limit * std.max())
    np.testing.assert_allclose(np.asarray(x).std(axis=1)[:, ~mask] / std, 1, atol=limit)


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [DPS, PiGDM, TMPD], ids=lambda guidance: guidance.__name__)
def test_draws_of_every_guidance_have_finite_derivatives(guidance):
    """That of the sum of draws, beside a difference of it."""
    method = guidance(sampler=sgm.DDIM(10))

    def total(first):
        y = jnp.asarray(Y[0], jnp.float32).at[0].set(first)
        return jnp.sum(sgm.sample_posterior(SDE, MODEL, Linear(operator, y, STD), jr.key(0), 2, method=method))

    at, step = jnp.asarray(3.1), 0.05
    slope = jax.grad(total)(at)
    assert slope != 0 and slope == pytest.approx(float(total(at + step) - total(at - step)) / (2 * step), rel=0.05)


@pytest.mark.slow
def test_conditions_go_with_their_observations():
    """Of a model whose data are N(cond, 1/4), seen under noise of 1/2: the mean is half way."""
    model = sgm.ScoreModel(lambda level, u, cond, key=None: _velocity(level, u, cond.params), shape=(1,))
    y, params = jnp.asarray([[1.0], [-1.0]]), jnp.asarray([[0.0], [2.0]])
    for method, cond, expected in (
        (MMPS(), params, [0.5, 0.5]),
        (MMPS(), params[1], [1.5, 0.5]),
        (SplitGibbs(), params, [0.5, 0.5]),
        (TwistedSMC(particles=128), params, [0.5, 0.5]),
    ):
        evidence = Linear(lambda x: x, y, 0.5)
        how = {"method": method, "cond": sgm.Condition(params=cond)}
        x = sgm.sample_posterior(SDE, model, evidence, jr.key(0), 500, **how)
        np.testing.assert_allclose(x.mean(axis=(1, 2)), expected, atol=0.08)


def _velocity(level, u, mean):
    return Gaussian(mean, jnp.eye(1) / 4).predict(level, u).velocity


@pytest.mark.slow
def test_nan_is_no_observation():
    method, key = MMPS(sampler=sgm.DDIM(20)), jr.key(0)
    found, expected = (sgm.sample_posterior(SDE, MODEL, each, key, 3, method=method) for each in (WITH_GAPS, SEEN))
    np.testing.assert_allclose(found, expected, atol=1e-3)


MODES = GaussianMixture(jnp.asarray([[-1.0, 0.4], [1.0, -0.2]]), jnp.full(2, 0.3), jnp.asarray([0.35, 0.65]))


def modes(y, std):
    """Weights of the two modes given y = x[0] + std noise, and log p(y)."""
    spread = np.sqrt(0.3**2 + std**2)
    terms = np.log([0.35, 0.65]) - 0.5 * ((y - np.asarray([-1.0, 1.0])) / spread) ** 2 - np.log(spread)
    return np.exp(terms - np.logaddexp(*terms)), np.logaddexp(*terms) - 0.5 * np.log(2 * np.pi)


@pytest.mark.slow
def test_twisted_smc_has_the_weights_of_modes_and_the_evidence():
    evidence = Linear(lambda x: x[:1], jnp.asarray([[0.15]]), 0.5)
    draws = sgm.sample_posterior(SDE, MODES, evidence, jr.key(0), 2000, method=TwistedSMC(), full=True)
    weights, log_evidence = modes(0.15, 0.5)
    assert float(jnp.mean(draws.x[0, :, 0] > 0)) == pytest.approx(weights[1], abs=0.05)
    assert draws.log_evidence.shape == (1,) and float(draws.log_evidence[0]) == pytest.approx(log_evidence, abs=0.1)
    assert 0 < float(draws.stderr[0]) < 0.1


@pytest.mark.slow
def test_the_error_of_the_log_evidence_that_is_told_holds_that_of_few_steps():
    y, std = np.linspace(-1.5, 1.5, 6), 0.2
    evidence = Linear(lambda x: x[:1], jnp.asarray(y)[:, None], std)
    draws = sgm.sample_posterior(SDE, MODES, evidence, jr.key(0), 2, method=TwistedSMC(steps=20), full=True)
    error = np.abs(np.asarray(draws.log_evidence) - [modes(each, std)[1] for each in y])
    assert error.max() > 0.5 and np.all(error < 3 * draws.stderr)


def test_the_log_evidence_of_a_gaussian_is_its_closed_form():
    method = METHODS["TwistedSMC"][0]
    draws = sgm.sample_posterior(SDE, MODEL, EVIDENCE, jr.key(0), DRAWS // 2, method=method, full=True)
    np.testing.assert_allclose(draws.log_evidence, [posterior(each)[2] for each in Y], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("method", [SplitGibbs(moves=30), TwistedSMC()], ids=lambda method: type(method).__name__)
def test_counts_have_their_posterior(method):
    """Of one number, by quadrature."""
    model, y = Gaussian(jnp.zeros(1), jnp.eye(1)), jnp.asarray([6.0])
    x = sgm.sample_posterior(SDE, model, Poisson(lambda x: 2 * jnp.exp(x), y), jr.key(0), DRAWS, method=method)
    grid = np.linspace(-5, 5, 4001)
    density = np.exp(6 * (np.log(2) + grid) - 2 * np.exp(grid) - grid**2 / 2)
    density /= density.sum()
    mean = np.sum(density * grid)
    std = np.sqrt(np.sum(density * (grid - mean) ** 2))
    assert abs(float(jnp.mean(x)) - mean) < 0.15 * std and float(jnp.std(x)) / std == pytest.approx(1, abs=0.12)


@pytest.mark.slow_except("DPS")
@pytest.mark.parametrize("method", [DPS(), SplitGibbs(sweeps=20)], ids=lambda method: type(method).__name__)
def test_a_likelihood_of_ones_own_moves_the_draws(method):
    evidence = Custom(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2) / 0.25)
    x = sgm.sample_posterior(SDE, MODES, evidence, jr.key(0), 64, method=method)
    prior = MODES.sample(jr.key(0), 64)
    assert float(jnp.mean(jnp.abs(x - 1))) < 0.7 * float(jnp.mean(jnp.abs(prior - 1)))


@pytest.mark.slow
def test_a_nonlinear_function_that_is_linear_is_a_linear_one():
    method = MMPS(sampler=sgm.DDIM(20))
    found = sgm.sample_posterior(SDE, MODEL, Nonlinear(operator, Y[0], STD), jr.key(0), 3, method=method)
    expected = sgm.sample_posterior(SDE, MODEL, Linear(operator, Y[0], STD), jr.key(0), 3, method=method)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("evidence", [EVIDENCE, Poisson(jnp.exp, jnp.ones(DIM))])
def test_evidence_from_outside_of_a_trace_may_be_used_within(evidence):
    draw = lambda key: sgm.sample_posterior(SDE, MODEL, evidence, key, 2, method=DPS(sampler=sgm.DDIM(3)))  # noqa: E731
    assert jax.eval_shape(draw, jr.key(0)).shape[-2:] == (2, DIM)


def test_the_way_of_2015_is_under_the_same_call():
    def draw(observed, key):
        evidence, method = MatchedDenoising(observed, 0.5), ToldTransitions(steps=20)
        return sgm.sample_posterior(SDE, MODEL, evidence, key, 2, method=method)

    assert jax.eval_shape(draw, jnp.ones((3, DIM)), jr.key(0)).shape == (3, 2, DIM)


WRONG = [
    (MMPS(), Custom(jnp.sum), TypeError, r"MMPS: it cannot take the evidence Custom; pass a likelihood with Gaussian"),
    (TwistedSMC(), Exactly(jnp.ones(DIM, bool), jnp.ones(DIM)), TypeError, r"pass Linear\(Mask\(mask\), y, std\)"),
    (MMPS(), Inpainting(jnp.ones(DIM), jnp.ones(DIM, bool)), TypeError, "it cannot take the evidence Inpainting"),
    (ToldTransitions(), EVIDENCE, TypeError, "it cannot take the evidence Linear; pass Inpainting, Denoising or"),
    (MMPS(), Linear(operator, jnp.ones(3), STD), ValueError, r"y has shape \(3,\), but Linear makes .* shape \(2,\)"),
]


@pytest.mark.parametrize(("method", "evidence", "error", "message"), WRONG, ids=[message[:20] for *_, message in WRONG])
def test_what_does_not_go_together_is_named(method, evidence, error, message):
    with pytest.raises(error, match=message):
        sgm.sample_posterior(SDE, MODEL, evidence, jr.key(0), 2, method=method)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MMPS(iterations=0), "MMPS: iterations = 0; pass iterations >= 1"),
        (lambda: SplitGibbs(smallest=20.0), "largest = 10.0, smallest = 20.0; pass largest >= smallest > 0"),
        (lambda: DPS(scale=-0.1), "DPS: scale = -0.1; pass scale >= 0"),
        (lambda: TwistedSMC(most_products=-1), "TwistedSMC: most_products = -1; pass most_products >= 0"),
        (lambda: TwistedSMC(threshold=1.5), "threshold = 1.5; pass 0 <= threshold <= 1"),
        (
            lambda: sgm.sample_posterior(SDE, MODEL, EVIDENCE, jr.key(0), 2, method=TwistedSMC(), batch_size=2),
            "TwistedSMC: it has no use for batch_size; leave it out",
        ),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
