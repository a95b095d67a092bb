"""Saved states of a path have the density of their time, wherever a solve steps."""

import math

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian

import sgm
from sgm.model import FixedLarge, Gaussian
from sgm.sde import cos_of
from sgm.solve import FixedSteps, LogSNRGrid, ThetaGrid, UniformGrid

SDE, NORMAL = sgm.VP(), Gaussian(jnp.zeros(8), jnp.eye(8))
# Those that are exact for N(0, I) in few steps; the others in so many that their own error is below half a percent.
METHODS = {
    "EulerMaruyama": sgm.EulerMaruyama(),
    "Ancestral": sgm.Ancestral(20, FixedLarge()),
    "DDIM": sgm.DDIM(1000),
    "DDIM eta": sgm.DDIM(2000, eta=1.0),
    "DPMSolverPP": sgm.DPMSolverPP(40),
    "SDEDPMSolverPP": sgm.SDEDPMSolverPP(80),
    "SingleDPMSolverPP": sgm.SingleDPMSolverPP(60),
    "EDMHeun": sgm.EDMHeun(60),
    "EDMHeun churn": sgm.EDMHeun(100, churn=30.0),
    "PredictorCorrector": sgm.PredictorCorrector(20, variance=FixedLarge(), snr=0.05),
    "ReverseSDE": sgm.ReverseSDE(),
    "ReverseSDE fixed": sgm.ReverseSDE(stepping=FixedSteps(100)),
    "ReverseSDE Euler": sgm.ReverseSDE(diffrax.Euler(), FixedSteps(1000)),
    "ProbabilityFlow": sgm.ProbabilityFlow(),
    "ProbabilityFlow fixed": sgm.ProbabilityFlow(diffrax.Heun(), FixedSteps(20, ThetaGrid())),
}


@pytest.mark.slow_except("Ancestral", "DPMSolverPP")
@pytest.mark.parametrize("method", METHODS)
def test_the_variance_is_right_at_steps_and_between_them(method):
    """N(0, I) is so at all times of VP: 1 to three standard errors."""
    chosen = METHODS[method]
    levels = chosen.levels(SDE)
    levels = LogSNRGrid().levels(SDE, 20) if levels is None else levels
    at = [len(levels) // 4, len(levels) // 2, 3 * len(levels) // 4, len(levels) - 3]
    halfway = [(levels[index] + levels[index + 1]) / 2 for index in at]
    wanted = sorted([*halfway, levels[at[1]]], reverse=True)
    ts = [SDE.t1, *(float(SDE.time(level)) for level in wanted), SDE.t0]
    x = sgm.sample(SDE, NORMAL, jr.key(1), 2500, method=chosen, saveat=diffrax.SaveAt(ts=ts))
    assert x.shape == (2500, 7, 8)
    np.testing.assert_allclose(x.var(axis=(0, 2)), 1, atol=3 * math.sqrt(2 / 20_000))


def test_saved_times_are_steps(float64):
    """One that is a step already adds none; the path elsewhere is that of a grid with the others in it."""
    method = sgm.Ancestral(20, FixedLarge())
    levels, times = (part(SDE, 20) for part in (method.grid.levels, method.grid.times))
    assert method.levels(SDE, diffrax.SaveAt(ts=times)).shape == (21,)
    between = float(SDE.time((levels[3] + levels[4]) / 2))
    ts = [float(times[2]), between, float(times[9])]
    found = np.asarray(method.levels(SDE, diffrax.SaveAt(ts=ts)))
    assert found.shape == (22,) and np.all(np.diff(found) < 0)
    np.testing.assert_allclose(np.delete(found, 4), levels, rtol=1e-9)
    np.testing.assert_allclose(found[4], SDE.level(between), rtol=1e-9)
    subs = [diffrax.SubSaveAt(ts=[between]), diffrax.SubSaveAt(ts=[0.5, between], t0=True)]
    assert method.levels(SDE, diffrax.SaveAt(subs=subs)).shape == (23,)


@pytest.mark.slow
def test_times_may_be_a_list():
    draw = lambda ts: sgm.sample(SDE, NORMAL, jr.key(2), 3, saveat=diffrax.SaveAt(ts=ts))  # noqa: E731
    np.testing.assert_array_equal(draw([1.0, 0.5, 1e-5]), draw(jnp.asarray([1.0, 0.5, 1e-5])))


@pytest.mark.slow
@pytest.mark.parametrize("ts", [[1.0, 0.4, 1e-5], "steps"], ids=["between", "steps"])
def test_saved_times_of_a_traced_process(ts):
    """Whose levels are not known while tracing: the same frames for a method that is exact on any grid."""
    method = sgm.ProbabilityFlow(diffrax.Heun(), FixedSteps(100, ThetaGrid()))
    model = gaussian(8)
    ts = UniformGrid().times(SDE, 5) if ts == "steps" else ts

    @jax.jit
    def draw(beta_max):
        sde = sgm.VP(sgm.sde.Linear(0.1, beta_max))
        return sgm.sample(sde, model, jr.key(3), 4, method=method, saveat=diffrax.SaveAt(ts=ts))

    expected = sgm.sample(SDE, model, jr.key(3), 4, method=method, saveat=diffrax.SaveAt(ts=ts))
    np.testing.assert_allclose(draw(20.0), expected, atol=5e-3)
    noisy = sgm.Ancestral(20, FixedLarge())
    traced = jax.jit(lambda sde: sgm.sample(sde, NORMAL, jr.key(4), 2500, method=noisy, saveat=diffrax.SaveAt(ts=ts)))
    np.testing.assert_allclose(traced(SDE).var(axis=(0, 2)), 1, atol=3 * math.sqrt(2 / 20_000))


@pytest.mark.slow_except("fixed")
@pytest.mark.parametrize("method", [sgm.ReverseSDE(), sgm.DDIM(7)], ids=["adaptive", "fixed"])
def test_frames_at_steps_come_with_their_number(method, float64):
    model = Gaussian(jnp.zeros(8), jnp.eye(8))
    saveat = diffrax.SaveAt(steps=True, fn=lambda t, x, args: (t, x))
    (t, x), count = sgm.sample(SDE, model, jr.key(5), 6, method=method, saveat=saveat)
    assert count.shape == (6,) and t.shape == (6, int(count.max())) and x.shape == (*t.shape, 8)
    for times, frames, number in zip(np.asarray(t), np.asarray(x), count, strict=True):
        assert np.isfinite(frames[:number]).all() and np.isnan(frames[number:]).all()
        assert np.all(np.diff(times[:number]) < 0)
        np.testing.assert_allclose(times[number - 1], SDE.t0, rtol=1e-3)
    ends = sgm.sample(SDE, model, jr.key(5), 6, method=method, saveat=diffrax.SaveAt(t0=True))
    last = np.stack([frames[number - 1] for frames, number in zip(x, count, strict=True)])
    np.testing.assert_allclose(last, ends[:, 0], rtol=1e-5)


@pytest.mark.slow
def test_a_frame_at_pure_noise_is_the_noise():
    """It is the prior's draw; from the step after, the path has the density of its level."""
    sde, method = sgm.Rectified(t1=1.0), sgm.Ancestral(20, FixedLarge())
    later = [float(t) for t in method.grid.times(sde, 20)[1:4]]
    x = sgm.sample(sde, NORMAL, jr.key(6), 2500, method=method, saveat=diffrax.SaveAt(ts=[1.0, *later]))
    std = np.asarray([1.0, *(np.hypot(1 - t, t) for t in later)])
    np.testing.assert_allclose(x.std(axis=(0, 2)) / std, 1, atol=1.5 * math.sqrt(2 / 20_000))
    assert float(cos_of(sde.level(later[0]))) < 2e-3
