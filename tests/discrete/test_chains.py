"""Chains of categories against explicit products of one-step matrices, in double precision."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from sgm.sde import (
    AbsorbingChain,
    AbstractBetas,
    AbstractCategoricalChain,
    BinomialChain,
    CosineBetas,
    FirstBetas,
    HarmonicBetas,
    LinearBetas,
    UniformChain,
)
from sgm.sde.categorical import LOG_ZERO, divergence


class _Skew(AbstractCategoricalChain):
    """A chain of one's own: two categories and two more states; one of each is never drawn."""

    betas: AbstractBetas = HarmonicBetas(5)
    categories: int = eqx.field(static=True, default=2)

    @property
    def target(self):
        return np.asarray([0.0, 0.7, 0.3, 0.0])


CHAINS = {
    "binomial": BinomialChain(HarmonicBetas(12), p=0.2),
    "uniform": UniformChain(3, CosineBetas(7)),
    "absorbing": AbsorbingChain(3, HarmonicBetas(9)),
    "binomial, not to the end": BinomialChain(LinearBetas(5, 0.1, 0.4), p=0.4),
    "one's own": _Skew(),
}
each_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def one_step(chain, k):
    """The matrix of step k, written out."""
    beta = chain.betas.values[k - 1]
    matrix = np.zeros((chain.states, chain.states))
    for before, after in itertools.product(range(chain.states), repeat=2):
        matrix[before, after] = beta * chain.target[after] + (1 - beta) * (before == after)
    return matrix


@eqx.filter_jit
def log_posterior(chain, step, x, x0):
    return chain.log_posterior(step, x, x0)


@eqx.filter_jit
def reverse_and_likelihood(chain, step, x, logits):
    return chain.log_reverse(step, x, logits), chain.log_likelihood(jnp.asarray(step.level), x)


def product(chain, s, t):
    return np.linalg.multi_dot([np.eye(chain.states)] * 2 + [one_step(chain, k) for k in range(s + 1, t + 1)])


@each_chain
def test_transitions_are_products_of_steps(chain):
    for s, t in ((0, 1), (0, chain.steps), (2, 5), (1, 1), (chain.steps - 1, chain.steps)):
        np.testing.assert_allclose(chain.transition(s, t), product(chain, s, t), atol=1e-14)


@each_chain
def test_marginals_are_rows_of_the_product(chain):
    for k in (0, 1, 4, chain.steps):
        found = jnp.exp(chain.log_marginal(jnp.asarray(k), jnp.arange(chain.categories)))
        np.testing.assert_allclose(found, product(chain, 0, k)[: chain.categories], atol=1e-6)


@each_chain
def test_posteriors_are_those_of_bayes(chain):
    for s, t in ((0, 1), (1, 2), (1, 4), (0, chain.steps), (chain.steps - 1, chain.steps)):
        step = chain.steps_between(np.asarray(s), np.asarray(t))
        first, second = product(chain, 0, s), product(chain, s, t)
        for x0, x in itertools.product(range(chain.categories), range(chain.states)):
            joint = first[x0] * second[:, x]
            if not np.sum(joint) > 0:  # x_t cannot come of x_0.
                continue
            found = np.exp(log_posterior(chain, step, jnp.asarray(x), jnp.asarray(x0)))
            np.testing.assert_allclose(found, joint / np.sum(joint), rtol=2e-5, atol=1e-7)


@each_chain
def test_reverse_steps_are_means_of_posteriors(chain):
    shares = np.random.default_rng(0).dirichlet(np.ones(chain.categories))
    for s, t in ((0, 1), (1, 4), (chain.steps - 1, chain.steps)):
        step = chain.steps_between(np.asarray(s), np.asarray(t))
        first, second, whole = product(chain, 0, s), product(chain, s, t), product(chain, 0, t)
        for x in range(chain.states):
            if not shares @ whole[: chain.categories, x] > 0:
                continue
            of_x0 = shares * whole[: chain.categories, x]
            possible = of_x0 > 0
            of_x0 = of_x0 / np.sum(of_x0)
            joint = first[: chain.categories][possible] * second[:, x]
            expected = of_x0[possible] @ (joint / np.sum(joint, axis=1, keepdims=True))
            logits = jnp.asarray(np.log(shares), jnp.float32)
            found, likelihood = reverse_and_likelihood(chain, step, jnp.asarray(x), logits)
            np.testing.assert_allclose(np.exp(found), expected, rtol=2e-5, atol=1e-7)
            posterior = jax.nn.softmax(logits + likelihood)
            np.testing.assert_allclose(posterior, of_x0, rtol=2e-5, atol=1e-7)


def test_small_steps_lose_no_digits():
    """The least likely flip of 2015's chain, one of 10^4 a step, to five digits in single precision."""
    chain = BinomialChain(HarmonicBetas(2000), p=0.2)
    step = chain.steps_between(np.asarray(999), np.asarray(1000))
    first, second = chain.transition(0, 999), chain.transition(999, 1000)
    joint = first[0] * second[:, 0]
    found = np.exp(chain.log_posterior(step, jnp.asarray(0), jnp.asarray(0)))
    np.testing.assert_allclose(found[1], joint[1] / np.sum(joint), rtol=1e-5)


@each_chain
def test_noise_has_the_frequencies_of_the_marginal(chain):
    x0 = jnp.full((20_000,), 1, jnp.int32)
    for k in (1, 3, chain.steps):
        counts = np.bincount(chain.noised(jnp.asarray(k), x0, jr.key(k)), minlength=chain.states)
        expected = product(chain, 0, k)[1] * len(x0)
        seen = expected > 0
        assert counts[~seen].sum() == 0
        assert np.count_nonzero(seen) == 1 or scipy.stats.chisquare(counts[seen], expected[seen]).pvalue > 1e-3


def test_harmonic_betas_leave_a_share_that_falls_evenly_to_nothing():
    chain = BinomialChain(HarmonicBetas(2000), p=0.2)
    np.testing.assert_allclose(np.exp(chain.log_kept), 1 - np.arange(2001) / 2000, atol=1e-12)
    assert chain.ends_in_pure_noise and not CHAINS["uniform"].ends_in_pure_noise
    np.testing.assert_array_equal(chain.transition(0, 2000), [[0.8, 0.2], [0.8, 0.2]])
    assert float(chain.prior_mismatch(jnp.asarray([0, 1, 1]))) == 0


def test_the_mismatch_at_the_prior_is_the_divergence():
    chain = UniformChain(3, LinearBetas(5, 0.1, 0.4))
    row = product(chain, 0, 5)[0]
    expected = 2 * np.sum(row * np.log(3 * row))
    np.testing.assert_allclose(chain.prior_mismatch(jnp.asarray([0, 2])), expected, rtol=1e-4)
    np.testing.assert_allclose(chain.entropy(jnp.asarray(5), jnp.asarray([0])), -np.sum(row * np.log(row)), rtol=1e-5)


@each_chain
def test_information_is_the_term_of_an_entry_on_its_own(chain):
    even = np.full(chain.categories, 1 / chain.categories)
    expected = []
    for k in range(1, chain.steps + 1):
        first, second, whole = product(chain, 0, k - 1), product(chain, k - 1, k), product(chain, 0, k)
        first, whole = first[: chain.categories], whole[: chain.categories]
        joint = even[:, None, None] * first[:, :, None] * second  # x_0, x_(k-1), x_k
        mean = np.sum(joint, axis=0) / np.maximum(np.sum(joint, axis=(0, 1)), 1e-300)
        own = joint / np.maximum(even[:, None, None] * whole[:, None], 1e-300)
        expected.append(np.sum(joint * np.log(np.where(joint > 0, own / np.where(mean > 0, mean, 1), 1))))
    np.testing.assert_allclose(chain.information, expected, atol=1e-12)


@pytest.mark.parametrize("far", [1e-6, 1e-3, 0.02, 0.05, 0.5])
def test_divergences_keep_their_digits(far):
    q = np.asarray([0.2, 0.5, 0.3, 0.0])
    p = q * np.exp(far * np.asarray([1.0, -1.0, 0.5, 0.0]))
    p = p / np.sum(p)
    exact = np.sum(q[:3] * (np.log(q[:3]) - np.log(p[:3])))
    logs = [jnp.asarray(np.maximum(np.log(np.maximum(part, 1e-300)), -700), jnp.float32) for part in (q, p)]
    logs = [jnp.where(jnp.arange(4) == 3, LOG_ZERO, part) for part in logs]
    # The logarithms themselves are rounded to 1e-7.
    np.testing.assert_allclose(divergence(*logs), exact, rtol=1e-5, atol=1e-14 + 1e-7 * far)
    assert float(divergence(*logs)) >= 0


def test_a_chain_can_end_earlier():
    chain = CHAINS["binomial"].until(5)
    assert chain.steps == 5 and chain.t1 == 5.0 and chain.p == 0.2
    np.testing.assert_array_equal(chain.log_kept, CHAINS["binomial"].log_kept[:6])
    # Nor need it reach the prior, where it begins with a state of its own.
    begun = AbsorbingChain(2, HarmonicBetas(6)).until(3)
    np.testing.assert_allclose(begun.transition(0, 3)[0], [0.5, 0.0, 0.5])
    with pytest.raises(ValueError, match="FirstBetas: steps = 9; pass steps <= 4"):
        FirstBetas(HarmonicBetas(4), 9)


def test_mistakes_are_answered():
    with pytest.raises(ValueError, match=r"BinomialChain: p = 1.0; pass 0 < p < 1, the share of ones in noise"):
        BinomialChain(p=1.0)
    with pytest.raises(ValueError, match="UniformChain: categories = 1; pass categories >= 2"):
        UniformChain(1)
    with pytest.raises(ValueError, match="AbsorbingChain: categories = 1; pass categories >= 2"):
        AbsorbingChain(1)
    with pytest.raises(ValueError, match=r"BinomialChain: beta_1 = 0.0; pass betas between 0 and 1, of which the last"):
        BinomialChain(LinearBetas(3, 0.0, 0.1))


def with_target(target, betas=HarmonicBetas(4)):
    """A chain of two categories with any target."""
    owned = property(lambda self: np.asarray(target))
    return type("_Own", (_Skew,), {"target": owned, "__module__": __name__})(betas)


def test_targets_of_ones_own_are_checked():
    for target in ([1.0, 1.0], [0.25, 0.25], [0.5, -0.5, 1.0], [1.0], [[0.5, 0.5]]):
        with pytest.raises(ValueError, match=r"Own: target = .*; give the probability of each state, of 2 or more"):
            with_target(target)
    with pytest.raises(ValueError, match=r"Own: an entry stays to the end with probability 0.2, but the prior has"):
        with_target([0.0, 1.0], LinearBetas(4, 0.2, 0.45))
    with pytest.raises(ValueError, match=r"AbsorbingChain: an entry stays to the end with .* such as HarmonicBetas"):
        AbsorbingChain(2, CosineBetas(50))


def test_times_that_are_none_are_answered(types_unchecked):
    chain, x = CHAINS["uniform"], jnp.zeros(2, int)
    for call in (
        lambda: chain.transition(5, 2),
        lambda: chain.transition(-1, 3),
        lambda: chain.steps_between(np.asarray([0, 5]), np.asarray([1, 2])),
        lambda: chain.log_marginal(jnp.asarray(8), x),
        lambda: chain.noised(jnp.asarray(2.5), x, jr.key(0)),
        lambda: chain.until(0),
        lambda: chain.until(1.5),
    ):
        with pytest.raises(ValueError, match=r"UniformChain\.\w+: times .*; pass whole numbers from [01] to 7"):
            call()
