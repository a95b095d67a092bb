import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import PROCESSES

import sgm
from sgm.sde import Cosine
from sgm.solve import FixedSteps, KarrasGrid, LogSNRGrid, QuadraticGrid, ThetaGrid, UniformGrid

pytestmark = pytest.mark.quick

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


@pytest.mark.parametrize("grid", EVEN)
def test_levels_fall_strictly_over_ten_decades(grid):
    sde = sgm.VE(1e-3, 1e7)
    levels = grid().levels(sde, 4000)
    assert (levels[0], levels[-1]) == (sde.level(sde.t1), sde.level(sde.t0))
    assert bool(jnp.all(jnp.diff(levels) < 0))


@pytest.mark.parametrize("grid", EVEN)
@pytest.mark.parametrize("sde", [sgm.Rectified(t1=1.0), sgm.VP(Cosine(ratio_max=np.inf))], ids=["Rectified", "Cosine"])
def test_the_first_step_from_pure_noise_is_to_a_finite_level(grid, sde):
    for steps in (2, 100):
        levels, times = (np.asarray(part(sde, steps)) for part in (grid().levels, grid().times))
        assert levels[0] == np.inf and times[0] == sde.t1
        assert np.isfinite(levels[1:]).all() and np.all(np.diff(levels[1:]) < 0) and np.all(np.diff(times) < 0)
        assert levels[1] < np.log(1e4)
    assert grid().levels(sde, 1).tolist() == [np.inf, float(sde.level(sde.t0))]


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match="FixedSteps: steps = 0; pass steps >= 1"):
        FixedSteps(0)


def test_grids_that_go_back_are_refused():
    class Back(sgm.solve.AbstractGrid):
        def levels(self, sde, steps):
            return LogSNRGrid().levels(sde, steps).at[2].add(5.0)

    model = sgm.model.Gaussian(jnp.zeros(2), jnp.eye(2))
    with pytest.raises(ValueError, match="Back: the levels of 10 steps along VP do not decrease: level 1 is"):
        sgm.sample(sgm.VP(), model, jr.key(0), method=sgm.EulerMaruyama(10, Back()))

    def traced(t1):
        return sgm.sample(sgm.VP(t1=t1), model, jr.key(0), method=sgm.EulerMaruyama(10, Back()))

    assert jnp.isnan(jax.jit(traced)(1.0)).all()


def test_more_steps_than_the_digits_can_tell_apart_are_refused():
    with pytest.raises(ValueError, match="UniformGrid: the levels of 1000 steps along VP do not decrease"):
        FixedSteps(1000, UniformGrid()).levels(sgm.VP(t0=0.5, t1=0.50001))
