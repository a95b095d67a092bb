import itertools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import PROCESSES, mixture

import sgm
from sgm.model import FixedLarge, FixedSmall, Gaussian
from sgm.posterior import Denoising, Inpainting, MatchedDenoising, PosteriorAncestral
from sgm.sde import sohl_dickstein_betas
from sgm.solve import ChainGrid

COV = 0.25 * np.exp(-np.abs(np.subtract.outer(np.arange(4), np.arange(4))) / 2)
MEAN = np.asarray([0.3, -0.2, 0.0, 0.1])
MODEL = Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.asarray(COV, jnp.float32))
MASK = np.asarray([True, True, False, False])
X0 = np.asarray(MODEL.sample(jr.key(0), 2))


def observations(std):
    """Eight, over which any affine function has the mean and the mean square that it has over all with such noise."""
    offsets = 2 * np.linalg.cholesky(COV + std**2 * np.eye(4)).T
    return np.concatenate([MEAN + offsets, MEAN - offsets])


def posterior(observed, std):
    """Means and covariance of N(MEAN, COV) given entries with noise of standard deviation `std` each, in float64."""
    gain = COV @ np.linalg.inv(COV + np.diag(np.broadcast_to(std, 4) ** 2))
    return MEAN + (observed - MEAN) @ gain.T, COV - gain @ COV


def recursion(sde, steps, evidence, variance=FixedSmall()):
    """Means, one for each observation, and covariance of u at t0 for MODEL, by the sampler's own rule in float64."""
    ends = jnp.asarray([sde.t1, sde.t0])
    levels = np.linspace(*np.float64(-0.5 * jax.vmap(sde.log_snr)(ends)), steps + 1)
    means, cov, eye = np.zeros_like(MEAN), np.eye(4), np.eye(4)
    for t, s in itertools.pairwise(levels):
        (cos_t, cos_s), (sin_t, sin_s) = np.cos(np.arctan(np.exp([t, s]))), np.sin(np.arctan(np.exp([t, s])))
        r = np.exp(2 * (s - t))
        denoise = cos_t * COV @ np.linalg.inv(cos_t**2 * COV + sin_t**2 * eye)
        slope = r * cos_s / cos_t * eye + (1 - r) * cos_s * denoise
        kernel = np.sqrt(1 - r) * (sin_t if variance == FixedLarge() else sin_s)
        kept, added, std = rule(evidence, cos_s, sin_s, np.full(4, kernel))
        means = kept * (means @ slope.T + (1 - r) * cos_s * (MEAN - cos_t * denoise @ MEAN)) + added
        cov = kept[:, None] * (slope @ cov @ slope.T) * kept + np.diag(std**2)
    return means, cov


def rule(evidence, cos, sin, kernel):
    """What it makes of the kernel: the factor that its mean keeps, what is added, and the standard deviation."""
    if isinstance(evidence, Inpainting):
        return np.where(MASK, 0.0, 1.0), np.where(MASK, evidence.known, 0.0), np.where(MASK, 0.0, kernel)
    y, std = np.float64(evidence.observed), float(evidence.std)
    if isinstance(evidence, Denoising):
        total = kernel**-2 + std**-2
        return kernel**-2 / total, y * std**-2 / total, total**-0.5
    if sin < std * cos:
        return np.ones(4), np.zeros(4), kernel
    return np.zeros(4), cos * y, np.full(4, np.sqrt(sin**2 - cos**2 * std**2))


def gaps(means, cov, truth, of=slice(None)):
    """How far means are off in posterior standard deviations, root mean square over observations and entries; the
    standard deviations in that unit, on average."""
    std = np.sqrt(np.diag(truth[1]))[of]
    off = (means - truth[0])[..., of] / std
    return np.sqrt(np.mean(off**2)), np.mean(np.sqrt(np.diag(cov))[of] / std)


def both_gaps(evidence, truth, of=slice(None)):
    """After 100 steps and after 1000."""
    return [gaps(*recursion(sgm.VP(), steps, evidence), truth, of) for steps in (100, 1000)]


@pytest.mark.parametrize(
    ("process", "evidence", "variance"),
    [
        ("VP", Denoising(X0[0], 0.3), FixedLarge()),
        ("Rectified", Inpainting(X0[0], MASK), FixedSmall()),
        ("VE", MatchedDenoising(X0[0], 0.3), FixedSmall()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_draws_have_the_moments_of_the_recursion(process, evidence, variance):
    """In few steps, where each counts."""
    n, sde = 20_000, PROCESSES[process]
    method, end = PosteriorAncestral(evidence, 20, variance), diffrax.SaveAt(t0=True)
    u = np.float64(sgm.sample(sde, MODEL, jr.key(3), n, method=method, saveat=end)[:, 0] / sde.rho(sde.t0))
    mean, cov = recursion(sde, 20, evidence, variance)
    std = np.sqrt(np.diag(cov))
    np.testing.assert_array_less(np.abs(u.mean(0) - mean), 5 * std / np.sqrt(n) + 1e-5)
    np.testing.assert_array_less(np.abs(np.cov(u.T) - cov), 5 * np.sqrt(2 / n) * np.outer(std, std) + 1e-5)


@pytest.mark.parametrize(("std", "off", "ratio"), [(0.1, 0.034, 0.711), (0.3, 0.162, 0.736), (1.0, 0.351, 0.846)])
def test_the_product_of_2015_is_biased_and_steps_do_not_mend_it(std, off, ratio):
    y = observations(std)
    few, many = both_gaps(Denoising(y, std), posterior(y, std))
    np.testing.assert_allclose(many, (off, ratio), atol=0.003)
    assert many[0] > few[0]
    assert abs(many[1] - few[1]) < 0.03


def test_the_product_of_2015_halves_the_variance_where_the_noise_is_small():
    _, (_, ratio) = both_gaps(Denoising(MEAN, 0.01), posterior(MEAN, 0.01))
    np.testing.assert_allclose(ratio, 0.5**0.5, rtol=0.01)


def test_inpainting_of_2015_is_biased_and_steps_do_not_mend_it():
    known = observations(0.0)
    truth = posterior(known, np.where(MASK, 0.0, 1e6))
    few, many = both_gaps(Inpainting(known, np.broadcast_to(MASK, known.shape)), truth, ~MASK)
    np.testing.assert_allclose(many, (0.262, 1.049), atol=0.003)
    assert many[0] > 0.95 * few[0]
    assert many[1] > few[1]


@pytest.mark.parametrize("std", [0.1, 0.3, 1.0])
def test_matched_denoising_draws_the_posterior(std):
    """Up to errors of the sampler's own, that go with the steps."""
    y = observations(std)
    few, many = both_gaps(MatchedDenoising(y, std), posterior(y, std))
    assert few[0] < 0.05
    assert many[0] < 0.01
    assert 0.01 < abs(few[1] - 1) < 0.08
    assert abs(many[1] - 1) < 0.011


@pytest.mark.slow
def test_matched_denoising_draws_the_modes_of_a_mixture():
    model, std = mixture(2), 0.6
    x0 = model.sample(jr.key(4), 6)
    y = np.float64(x0 + std * jr.normal(jr.key(5), x0.shape))
    means, stds, weights = np.float64(model.means), np.float64(model.stds), np.float64(model.weights)
    total = stds**2 + std**2
    shares = weights / total * np.exp(-np.sum((y[:, None] - means) ** 2, -1) / (2 * total))
    shares /= shares.sum(-1, keepdims=True)
    centres = means + (stds**2 / total)[:, None] * (y[:, None] - means)
    mean = np.einsum("yk,ykd->yd", shares, centres)
    square = np.einsum("yk,ykd->yd", shares, centres**2 + (stds**2 * std**2 / total)[:, None])
    spread = np.sqrt(square - mean**2)

    def draw(y, key):
        method = PosteriorAncestral(MatchedDenoising(y, std), 200)
        return sgm.sample(sgm.VP(), model, key, 1000, method=method)

    x = np.float64(jax.jit(jax.vmap(draw))(y, jr.split(jr.key(2), 6)))
    assert np.sqrt(np.mean(((x.mean(1) - mean) / spread) ** 2)) < 0.07
    np.testing.assert_allclose(np.mean(x.std(1) / spread), 1, atol=0.03)


@pytest.mark.parametrize(
    "evidence",
    [Denoising(X0[0], np.inf), Inpainting(np.full(4, np.nan), np.zeros(4, bool)), MatchedDenoising(X0[0], np.inf)],
    ids=lambda evidence: type(evidence).__name__,
)
def test_without_evidence_its_step_is_the_ancestral_one(evidence):
    noise = jr.normal(jr.key(6), (2, 4))
    for t, s in ((4.0, 3.5), (-1.0, -2.0)):
        step = jnp.asarray(t), jnp.asarray(s), noise[0], noise[1:], None
        u, _ = PosteriorAncestral(evidence).advance(MODEL.predict, *step)
        np.testing.assert_array_equal(u, sgm.Ancestral().advance(MODEL.predict, *step)[0])


@pytest.mark.slow
def test_with_nothing_known_it_is_the_ancestral_sampler():
    method = PosteriorAncestral(Inpainting(X0[0], np.zeros(4, bool)), 30)
    x = sgm.sample(sgm.VP(), MODEL, jr.key(6), 50, method=method)
    np.testing.assert_array_equal(x, sgm.sample(sgm.VP(), MODEL, jr.key(6), 50, method=sgm.Ancestral(30)))


@pytest.mark.slow_except("some")
@pytest.mark.parametrize("mask", [np.ones(4, bool), MASK], ids=["all", "some"])
def test_known_entries_are_exact_in_the_path(mask):
    """On the chain of 2015; the model's denoised end moves them."""
    chain = sgm.DiscreteChain(sohl_dickstein_betas(40))
    method = PosteriorAncestral(Inpainting(X0[0], mask), 39, grid=ChainGrid())
    x, _ = sgm.sample(chain, MODEL, jr.key(7), 20, method=method, saveat=diffrax.SaveAt(steps=True))
    np.testing.assert_allclose(x[..., mask], np.broadcast_to(X0[0][mask], x[..., mask].shape), rtol=1e-6)
    moved = jax.jit(jax.vmap(lambda last: MODEL.denoise(chain, chain.t0, last)))(x[:, -1]) - X0[0]
    assert 1e-3 < np.abs(moved[:, mask]).max() < 2 * chain.sigma(chain.t0)


@pytest.mark.slow
def test_observations_are_mapped_over():
    def draw(y, key):
        return sgm.sample(sgm.VP(), MODEL, key, 3, method=PosteriorAncestral(Denoising(y, 0.3), 20))

    keys = jr.split(jr.key(10), 2)
    x = jax.vmap(draw)(X0, keys)
    for each, y, key in zip(x, X0, keys, strict=True):
        np.testing.assert_allclose(each, draw(y, key), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", [-3.0, 3.0])
def test_matched_denoising_has_gradients_at_all_levels(level):
    def total(y, std):
        return sum(map(jnp.sum, MatchedDenoising(y, std).apply(jnp.asarray(level), jnp.zeros(4), jnp.asarray(0.1))))

    slopes = jax.jit(jax.grad(total, (0, 1)))(jnp.asarray(X0[0]), jnp.asarray(0.3))
    assert all(np.isfinite(slope).all() for slope in slopes)


def _sample(evidence, sde=sgm.VP()):
    return sgm.sample(sde, MODEL, jr.key(0), method=PosteriorAncestral(evidence, 5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PosteriorAncestral(Denoising(X0[0], 0.3), 0), "PosteriorAncestral: steps = 0; pass steps >= 1"),
        (lambda: Denoising(X0[0], 0.0), r"Denoising: std = 0.0; pass std > 0, or Inpainting"),
        (
            lambda: _sample(MatchedDenoising(X0[0], 2.0), sgm.VP(t1=0.3)),
            r"MatchedDenoising: std = 2.0, but after its first step the process is at sigma/alpha = 0",
        ),
        (lambda: MatchedDenoising(X0[0], -1.0), r"MatchedDenoising: std = -1.0; pass std > 0"),
        (lambda: Inpainting(X0[0], MASK[:3]), r"mask has shape \(3,\) and dtype bool, known has shape \(4,\); pass a"),
        (lambda: Inpainting(X0[0], X0[0]), r"dtype float32, known has shape \(4,\); pass a boolean mask"),
        (
            lambda: _sample(Denoising(X0, 0.3)),
            r"evidence has shape \(2, 4\), but .* \(4,\);.*sample_posterior",
        ),
    ],
)
def test_wrong_options_are_named(build, message, types_unchecked):
    with pytest.raises(ValueError, match=message):
        build()
