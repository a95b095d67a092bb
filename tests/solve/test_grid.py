import jax.numpy as jnp
import numpy as np
import pytest
from truth import PROCESSES

from sgm.solve import FixedSteps, KarrasGrid, LogSNRGrid, QuadraticGrid, ThetaGrid, UniformGrid

# What each grid spaces evenly.
EVEN = {
    UniformGrid: lambda sde, t: t,
    QuadraticGrid: lambda sde, t: np.sqrt(t),
    ThetaGrid: lambda sde, t: sde.theta(t),
    LogSNRGrid: lambda sde, t: sde.log_snr(t),
    KarrasGrid: lambda sde, t: jnp.tan(sde.theta(t)) ** (1 / 7),
}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("grid", EVEN)
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_grids_fall_evenly_from_one_end_to_the_other(process, grid, steps):
    sde = PROCESSES[process]
    t = grid().times(sde, steps)
    assert t.shape == (steps + 1,)
    assert (t[0], t[-1]) == (np.float32(sde.t1), np.float32(sde.t0))
    assert bool(jnp.all(jnp.diff(t) < 0))
    gaps = np.diff(np.asarray(EVEN[grid](sde, np.asarray(t)), np.float64))
    np.testing.assert_allclose(gaps, gaps.mean(), rtol=0.02 if steps < 1000 else 0.1)


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match="FixedSteps: steps = 0; pass steps >= 1"):
        FixedSteps(0)
