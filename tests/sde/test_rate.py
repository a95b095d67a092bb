"""Schedules from a rate: the quadrature and the inverse, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgm
from sgm.sde import AbstractRate, Linear
from sgm.types import Number


class _LinearRate(AbstractRate):
    low: Number = 0.1
    high: Number = 20.0

    def rate(self, t):
        return self.low + t * (self.high - self.low)


class _Sine(AbstractRate):
    def rate(self, t):
        return 0.1 + 20 * jnp.sin(jnp.pi * t / 2) ** 2


T = jnp.asarray([1e-5, 1e-3, 0.1, 0.37, 0.9, 1.0])


def test_a_linear_rate_is_the_linear_schedule():
    np.testing.assert_allclose(_LinearRate().integral(T), Linear().integral(T), rtol=1e-6)
    np.testing.assert_allclose(_LinearRate().inverse(Linear().integral(T)), T, rtol=1e-5)


def test_the_integral_of_a_sine_is_its_closed_form():
    expected = 0.1 * T + 10 * (T - jnp.sin(jnp.pi * T) / jnp.pi)
    np.testing.assert_allclose(_Sine().integral(T), expected, rtol=2e-6, atol=1e-8)
    np.testing.assert_allclose(_Sine().inverse(_Sine().integral(T)), T, rtol=1e-4)


def test_both_have_their_derivatives():
    schedule = _LinearRate()
    rate = jax.jit(jax.vmap(jax.grad(lambda t: schedule.integral(t))))(T)
    np.testing.assert_allclose(rate, schedule.rate(T), rtol=1e-5)
    slope = jax.jit(jax.vmap(jax.grad(lambda integral: schedule.inverse(integral))))(schedule.integral(T))
    np.testing.assert_allclose(slope, 1 / schedule.rate(T), rtol=1e-4)
    by_rate = jax.jit(jax.grad(lambda high: _LinearRate(high=high).inverse(2.0)))(20.0)
    known = jax.jit(jax.grad(lambda high: Linear(beta_max=high).inverse(2.0)))(20.0)
    assert by_rate == pytest.approx(float(known), rel=1e-3)


@pytest.mark.parametrize("t", [1e-3, 0.5, 1.0])
def test_a_process_of_it_is_that_of_the_closed_form(t):
    ours, known = sgm.VP(_LinearRate()), sgm.VP()
    for name in ("alpha", "sigma", "level", "diffusion"):
        np.testing.assert_allclose(getattr(ours, name)(t), getattr(known, name)(t), rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(ours.time(known.level(t)), t, rtol=1e-4)
