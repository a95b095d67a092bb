"""The samplers of EDM's preconditionings are its algorithm 1, at its own levels."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from interop.diffusers.loops import NOISE, Closed, gap

import sgm
from sgm.interop.edm.preconditioning import READERS, EDMGrid
from sgm.interop.timestep.fields import Fields
from sgm.sde import VE, cos_of

# The lowest and the highest sigma of each network, by table 1 of the paper, which bound 0.002 and 80 of its sampler.
NETWORKS = {
    "EDMPrecond": (0.0, np.inf),
    "VPPrecond": tuple(np.sqrt(np.expm1(9.95 * t**2 + 0.1 * t)) for t in (1e-5, 1.0)),
    "VEPrecond": (0.02, 100.0),
    "iDDPMPrecond": (0.00642541, 20291.0),
}


def table(kind):
    """t_0 > ... > t_17 of its 18 steps."""
    lowest, highest = NETWORKS[kind]
    low, high = max(0.002, lowest), min(80.0, highest)
    share = np.arange(18) / 17
    return (high ** (1 / 7) + share * (low ** (1 / 7) - high ** (1 / 7))) ** 7


def algorithm_1(denoised, times, x):
    """Algorithm 1 of Karras et al. 2022 with s = 1 and sigma = t, in double precision."""
    for t, s in zip(times, [*times[1:], 0.0], strict=True):
        slope = (x - denoised(x, t)) / t
        euler = x + (s - t) * slope
        x = euler if s == 0 else x + (s - t) * (slope + (euler - denoised(euler, s)) / s) / 2
    return x


@pytest.mark.parametrize("kind", READERS)
def test_levels_are_those_of_edm(kind):
    scheduler = READERS[kind](Fields({}, kind))
    sde = scheduler.sampler.process(scheduler.sde)
    assert scheduler.sampler.process(sde) is sde
    np.testing.assert_allclose(np.exp(scheduler.sampler.levels(sde)), table(kind), rtol=5e-6)


@pytest.mark.slow_except("EDMPrecond", "iDDPMPrecond")
@pytest.mark.parametrize("kind", READERS)
def test_samples_are_those_of_algorithm_1(kind):
    scheduler = READERS[kind](Fields({}, kind))
    model = scheduler.model(Closed(doubled=kind == "iDDPMPrecond"))

    @jax.jit
    def estimate(level, u):
        return jax.vmap(lambda u: model.predict(level, u).denoised)(u)

    def denoised(x, sigma):
        u = jnp.asarray(x / np.hypot(1, sigma), jnp.float32)
        return np.asarray(estimate(jnp.asarray(np.log(sigma), jnp.float32), u), np.float64)

    times = table(kind)
    wanted = algorithm_1(denoised, times, times[0] * NOISE.astype(np.float64))
    sde = scheduler.sampler.process(scheduler.sde)
    x1 = NOISE * np.float32(times[0]) * cos_of(sde.level(sde.t1)) * sde.rho(sde.t1)
    found = sgm.sample(scheduler.sde, model, jr.key(0), x1=x1, method=scheduler.sampler)
    assert gap(np.asarray(found), wanted) < 1e-4


def test_a_traced_process_has_no_such_levels():
    with pytest.raises(ValueError, match="EDMGrid: process is traced by"):
        jax.jit(lambda low: EDMGrid().levels(VE(low, 100.0), 5))(0.02)
