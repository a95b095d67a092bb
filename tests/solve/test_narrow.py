"""Adaptive samplers at their default tolerances draw Gaussians of any width."""

import diffrax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from widths import Independent

import sgm

WIDTHS = (1e-4, 1e-3, 3e-3, 1e-2, 0.1, 1.0, 10.0)
PROCESSES = {"VP": sgm.VP(), "VE": sgm.VE()}


def spread(sde, std, t):
    return np.sqrt(float(sde.alpha(t)) ** 2 * np.square(std, dtype=np.float64) + float(sde.sigma(t)) ** 2)


@pytest.mark.slow_except("VP")
@pytest.mark.parametrize("process", PROCESSES)
def test_the_probability_flow_carries_every_width(process):
    sde, std = PROCESSES[process], jnp.asarray(WIDTHS)[:, None]
    saveat = diffrax.SaveAt(ts=jnp.asarray([sde.t1, sde.t0]))
    how = {"method": sgm.ProbabilityFlow(), "saveat": saveat, "cond": sgm.Condition(params=std)}
    x1, x0 = np.moveaxis(np.asarray(sgm.sample(sde, Independent((1,)), jr.key(0), len(WIDTHS), **how)), 1, 0)
    # The flow of a Gaussian is linear: it stretches every draw by the same factor.
    np.testing.assert_allclose(x0 / x1, spread(sde, std, sde.t0) / spread(sde, std, sde.t1), rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
def test_the_reverse_sde_draws_every_width(process):
    sde, n, std = PROCESSES[process], 2048, np.asarray([1e-4, 1e-3, 1e-2, 10.0], np.float32)
    how = {"method": sgm.ReverseSDE(), "saveat": diffrax.SaveAt(t0=True)}
    cond = sgm.Condition(params=jnp.repeat(jnp.asarray(std), n)[:, None])
    x = np.reshape(sgm.sample(sde, Independent((1,)), jr.key(0), n * len(std), cond=cond, **how), (len(std), n))
    # The standard error of a spread is 1 / sqrt(2 n) of it.
    np.testing.assert_allclose(np.std(x, axis=1) / spread(sde, std, sde.t0), 1, atol=0.01 + 3 / np.sqrt(2 * n))


@pytest.mark.slow_except("0.002-VP")
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("std", [2e-3, 3e-3, 10.0])
def test_no_draw_of_the_flow_is_thrown_out(process, std):
    """The flow of a Gaussian is linear, for each of many draws."""
    sde, n = PROCESSES[process], 4000
    how = {"method": sgm.ProbabilityFlow(), "saveat": diffrax.SaveAt(ts=jnp.asarray([sde.t1, sde.t0]))}
    cond = sgm.Condition(params=jnp.full((n, 1), std))
    x1, x0 = np.moveaxis(np.asarray(sgm.sample(sde, Independent((1,)), jr.key(3), n, cond=cond, **how)), 1, 0)
    ends = [spread(sde, std, t) for t in (sde.t0, sde.t1)]
    np.testing.assert_allclose(x0 / ends[0], x1 / ends[1], atol=0.03, rtol=0.02)
