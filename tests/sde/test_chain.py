import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import PROCESSES, gaussian

import sgm
from sgm.sde import (
    CosineBetas,
    DiscreteChain,
    LinearBetas,
    ScaledLinearBetas,
    ZeroTerminalSNR,
    cosine_betas,
    linear_betas,
    sigmoid_betas,
    sohl_dickstein_betas,
)

TABLES = {
    "scaled": ScaledLinearBetas(1000).values,
    "linear": linear_betas(1000),
    "cosine": cosine_betas(1000),
    "sigmoid": sigmoid_betas(1000),
    "2015": sohl_dickstein_betas(1000),
    "few": np.asarray([0.3, 0.01, 0.6]),
}
each_table = pytest.mark.parametrize("betas", TABLES.values(), ids=TABLES.keys())


def steps(betas):
    return jnp.arange(1, len(betas) + 1, dtype=jnp.float32)


@each_table
def test_levels_at_the_steps_are_those_of_the_chain(betas):
    chain = DiscreteChain(betas)
    kept = np.cumprod(1 - betas)
    assert (chain.t0, chain.t1, chain.steps) == (1, len(betas), len(betas))
    np.testing.assert_allclose(chain.alpha(steps(betas)), np.sqrt(kept), rtol=1e-6)
    np.testing.assert_allclose(chain.sigma(steps(betas)), np.sqrt(1 - kept), rtol=1e-6)
    np.testing.assert_allclose(chain.betas.values, betas, rtol=1e-12)


@each_table
def test_transitions_are_those_of_the_chain(betas):
    scale, std = DiscreteChain(betas).transition(steps(betas)[:-1], steps(betas)[1:])
    np.testing.assert_allclose(scale, np.sqrt(1 - betas[1:]), rtol=2e-6)
    # beta is the small difference of two log-SNRs, of up to ten, in single precision.
    np.testing.assert_allclose(std**2, betas[1:], rtol=1e-6, atol=2e-6)


@each_table
def test_the_rate_on_step_k_is_that_of_beta_k(betas):
    chain, rate = DiscreteChain(betas), -np.log1p(-betas)
    for t in (steps(betas), steps(betas) - 0.5):
        np.testing.assert_allclose(chain.diffusion(t) ** 2, rate, rtol=1e-5)
        np.testing.assert_allclose(chain.drift(t, jnp.ones_like(t)), -rate / 2, rtol=1e-5)


@each_table
def test_time_inverts_the_noise_level_between_the_steps(betas):
    chain, t = DiscreteChain(betas), jnp.linspace(1, len(betas), 3333)
    np.testing.assert_allclose(chain.theta(chain.time(chain.level(t))), chain.theta(t), rtol=1e-6)
    np.testing.assert_allclose(chain.time(chain.level(t)), t, atol=2e-3)


def test_tables_are_those_of_their_papers():
    assert (TABLES["linear"][0], TABLES["linear"][-1]) == (1e-4, 0.02)
    np.testing.assert_allclose(np.prod(1 - TABLES["linear"]) ** 0.5, 0.00635, rtol=1e-3)  # x_N is noise (DDPM)
    kept = np.cumprod(1 - TABLES["cosine"])
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(kept[:-1], f[1:-1] / f[0], rtol=1e-9)
    assert TABLES["cosine"].max() == 0.999
    middle = TABLES["sigmoid"][499:501].mean()
    np.testing.assert_allclose(middle, (1e-4 + 0.02) / 2, rtol=1e-6)
    # Each step of 2015's chain destroys as much of the data's variance, 1/N, of which one share is left.
    left = np.cumprod(1 - TABLES["2015"])
    np.testing.assert_allclose(-np.diff(left), 1e-3, rtol=0.01)
    np.testing.assert_allclose(left[-1], 1e-3, rtol=0.05)
    np.testing.assert_allclose(TABLES["2015"][0], 0.001 + 0.001 + 1e-6, rtol=2e-3)


def test_scaled_betas_have_even_roots():
    betas = ScaledLinearBetas(1000, 8.5e-4, 0.012).values
    np.testing.assert_allclose(np.diff(np.sqrt(betas)), (0.012**0.5 - 8.5e-4**0.5) / 999, rtol=1e-9)
    np.testing.assert_allclose(betas[[0, -1]], [8.5e-4, 0.012], rtol=1e-12)


@pytest.mark.parametrize(
    "betas", [LinearBetas(1000), ScaledLinearBetas(1000), CosineBetas(50), LinearBetas(2, 0.1, 0.2)]
)
def test_zero_terminal_snr_leaves_nothing(betas):
    before, chain = np.sqrt(np.cumprod(1 - betas.values)), DiscreteChain(ZeroTerminalSNR(betas))
    k = jnp.arange(1.0, len(before) + 1)
    # An affine map of the alphas that keeps the first and takes the last to 0.
    after = before[0] * (before - before[-1]) / (before[0] - before[-1])
    np.testing.assert_allclose(np.sqrt(np.cumprod(1 - chain.betas.values)), after, rtol=1e-9)
    np.testing.assert_allclose(chain.alpha(k), after, rtol=1e-5)
    assert chain.betas.values[-1] == 1 and chain.betas.values[0] == betas.values[0]
    assert chain.level(k[-1]) == np.inf and chain.ends_in_pure_noise
    # Within the last step, alpha falls linearly.
    np.testing.assert_allclose(chain.alpha(k[-1] - 0.5), after[-2] / 2, rtol=1e-5)


def test_a_chain_is_a_process_in_continuous_time_and_back():
    chain = DiscreteChain(TABLES["cosine"])
    continuous = chain.continuous()
    t = jnp.linspace(1, 1000, 777)
    np.testing.assert_allclose(jax.jit(continuous.theta)(t / 1000), jax.jit(chain.theta)(t), rtol=2e-6)
    again = DiscreteChain.at_times(continuous, np.arange(1, 1001) / 1000)
    np.testing.assert_allclose(again.betas.values, chain.betas.values, rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_chain_at_times_of_a_process_has_its_noise_levels(process):
    sde = PROCESSES[process]
    times = np.linspace(sde.t0, sde.t1, 50)
    chain = DiscreteChain.at_times(sde, times)
    np.testing.assert_allclose(chain.log_snr(jnp.arange(1.0, 51.0)), sde.log_snr(times), rtol=1e-5, atol=3e-5)


def test_a_fine_chain_of_vp_has_its_betas():
    """beta_k -> beta(t) dt. Source: Song et al. 2021 (arXiv:2011.13456, appendix B)."""
    betas = DiscreteChain.at_times(sgm.VP(), np.arange(1, 1001) / 1000).betas.values
    np.testing.assert_allclose(betas, 1e-3 * (0.1 + 19.9 * (np.arange(1000) + 0.5) / 1000), rtol=0.011)


def test_likelihoods_on_a_chain_are_exact():
    chain, model = DiscreteChain(linear_betas(1000)), gaussian(3)
    start = model.marginal(chain, chain.t0)
    x = start.sample(jr.key(0), 50)
    result = sgm.log_prob(chain, model, x, trace=sgm.Exact(), prior=model.marginal(chain, chain.t1), full=True)
    np.testing.assert_allclose(result.value, jax.vmap(start.log_prob)(x), atol=2e-3)
    assert int(result.nfe.max()) < 100  # the rate jumps a thousand times


def test_tables_are_printed_by_their_size():
    assert len(repr(DiscreteChain())) < 300
    table = DiscreteChain(np.linspace(0.01, 0.2, 500))
    assert repr(table) == "DiscreteChain(betas=TableBetas(table=f64[500]), t0=1.0, t1=500.0)"
    assert repr(table.schedule) == "PiecewiseConstant(increments=f64[500], end=500.0)"
    assert len(repr(table.continuous())) < 300


def test_tables_are_no_parameters():
    chain = DiscreteChain(linear_betas(10))
    assert not any(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(chain))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DiscreteChain(np.asarray([0.1])), r"DiscreteChain: betas of shape \(1,\); pass two or more"),
        (
            lambda: DiscreteChain(np.asarray([0.1, 1.0, 0.1])),
            "DiscreteChain: beta_2 = 1.0; pass betas .* the last may be 1",
        ),
        (lambda: DiscreteChain(np.asarray([np.nan, 0.1])), "DiscreteChain: beta_1 = nan"),
        (lambda: DiscreteChain.at_times(sgm.VP(), np.asarray([0.5, 0.1])), r"does not grow at times\[1\] = 0.1; pass"),
        (lambda: DiscreteChain.at_times(sgm.VP(), np.asarray([0.5, 2.0])), "at_times: t = 2.0 lies outside"),
        (lambda: cosine_betas(1), "CosineBetas: steps = 1; pass steps >= 2"),
    ],
)
def test_wrong_tables_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
