import jax
import jax.numpy as jnp
import numpy as np
import pytest
from truth import PROCESSES

import sgm
from sgm.sde import Cosine, DiscreteChain, Linear, cos_of, linear_betas, sin_of, theta_of
from sgm.sde.level import angle_between, angle_rate, clock_of, level_at

# Wide in sigma/alpha, up to where theta has no digits in single precision; and a chain of many steps.
WIDE = {
    "VE": sgm.VE(1e-3, 3e7),
    "VP": sgm.VP(Linear(0.1, 70.0)),
    "chain": DiscreteChain(linear_betas(4000)),
}
PURE_NOISE = {
    "VP cosine": sgm.VP(Cosine(ratio_max=np.inf)),
    "SubVP cosine": sgm.SubVP(Cosine(ratio_max=np.inf)),
    "Rectified": sgm.Rectified(t1=1.0),
    "chain": DiscreteChain(np.append(linear_betas(99, 1e-3, 0.1), 1.0)),
}
LEVELS = np.linspace(-15, 25, 4001).astype(np.float32)


def both(names):
    """A parametrisation by names of processes."""
    return pytest.mark.parametrize("sde", list(names.values()), ids=list(names))


def test_cosine_and_sine_have_all_their_digits():
    exact = LEVELS.astype(np.float64)
    cos, sin = 1 / np.sqrt(1 + np.exp(2 * exact)), 1 / np.sqrt(1 + np.exp(-2 * exact))
    np.testing.assert_allclose(cos_of(LEVELS), cos, rtol=2e-7)
    np.testing.assert_allclose(sin_of(LEVELS), sin, rtol=2e-7)
    np.testing.assert_allclose(theta_of(LEVELS), np.arctan2(sin, cos), rtol=3e-7)
    for function, slope in ((cos_of, -cos * sin**2), (sin_of, sin * cos**2)):
        np.testing.assert_allclose(jax.vmap(jax.grad(function))(LEVELS), slope, rtol=2e-6)


@pytest.mark.parametrize("level", [-np.inf, np.inf])
def test_no_noise_and_pure_noise_are_levels(level):
    for function, at_noise in ((cos_of, 0.0), (sin_of, 1.0), (theta_of, np.pi / 2)):
        value, slope = jax.value_and_grad(function)(jnp.asarray(level))
        expected = at_noise if level > 0 else {cos_of: 1.0}.get(function, 0.0)
        np.testing.assert_allclose([value, slope], [expected, 0.0], rtol=1e-6)


def test_the_clock_keeps_the_digits_of_the_level():
    """At both ends, where a change of the level is the same share of the angle, or of what a right angle leaves."""
    clock = np.asarray(clock_of(LEVELS))
    np.testing.assert_allclose(clock, np.log1p(np.log1p(np.exp(LEVELS.astype(np.float64)))), rtol=5e-7)
    assert np.all(np.diff(clock) > 0)
    np.testing.assert_allclose(level_at(clock), LEVELS, rtol=0, atol=5e-6)


def test_rates_and_differences_of_the_angle_are_exact():
    ratio = np.exp(LEVELS.astype(np.float64))
    rate = (1 + ratio) / (1 + ratio**2) * (1 + np.log1p(ratio))  # of theta = arctan(ratio) by log(1 + log(1 + ratio))
    np.testing.assert_allclose(angle_rate(LEVELS), rate, rtol=1e-6)
    ratio, apart = ratio[::50], LEVELS[::50]
    differences = np.arctan((ratio[1:] - ratio[:-1]) / (1 + ratio[1:] * ratio[:-1]))
    np.testing.assert_allclose(angle_between(apart[:-1], apart[1:]), differences, rtol=1e-6)


def fine_times(sde, count=2001):
    """Float32 times over the whole range, dense near the data."""
    near = np.geomspace(1e-3, 1, count) * (sde.t1 - sde.t0)
    every = np.unique(np.concatenate([np.linspace(sde.t0, sde.t1, count), sde.t0 + near]).astype(np.float32))
    return np.clip(every, np.float32(sde.t0), np.float32(sde.t1))


@both(PROCESSES | WIDE)
def test_levels_rise_and_time_inverts_them(sde):
    t = fine_times(sde)
    level, slope = jax.jvp(sde.level, (jnp.asarray(t),), (jnp.ones_like(t),))
    assert bool(jnp.all(jnp.isfinite(level))) and bool(jnp.all(jnp.diff(level) >= 0))
    assert bool(jnp.all(jnp.diff(level[:: len(t) // 500]) > 0))
    # To rounding of the time itself, and of the level.
    rounding = 4e-7 * np.abs(t) + 1e-6 * (1 + np.abs(level)) / slope
    assert np.all(np.abs(sde.time(level) - t) <= rounding)


@both(PURE_NOISE)
def test_a_process_may_end_in_pure_noise(sde):
    assert sde.ends_in_pure_noise
    t = np.append(np.linspace(sde.t0, sde.t1, 100)[1:-1], sde.t1).astype(np.float32)
    level = np.asarray(sde.level(t))
    assert np.all(np.diff(level[:-1]) > 0) and np.isfinite(level[:-1]).all() and level[-1] == np.inf
    np.testing.assert_allclose(sde.time(level), t, rtol=1e-5)
    end = [float(part(sde.t1)) for part in (sde.alpha, sde.sigma, sde.rho, sde.theta)]
    np.testing.assert_allclose(end, [0, 1, 1, np.pi / 2], atol=1e-7)
    assert float(sde.prior.std) == 1
    np.testing.assert_allclose(sde.transition(sde.t0, sde.t1), [0, 1], atol=1e-7)


def test_other_processes_do_not_end_in_pure_noise():
    assert not any(sde.ends_in_pure_noise for sde in (PROCESSES | WIDE).values())
