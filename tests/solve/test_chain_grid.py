import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import gaussian

import sgm
from sgm.sde import DiscreteChain, LinearBetas, ZeroTerminalSNR
from sgm.solve import DDIM, ChainGrid, FixedSteps, KarrasGrid, LeadingGrid, ShiftedGrid, TrailingGrid, WithinGrid

CHAIN = DiscreteChain(LinearBetas(1000))


# Timesteps t = k - 1 of table 2 of Lin et al. 2023, for 10 of 1000, and the variants of diffusers.
TIMESTEPS = {
    "linspace": (ChainGrid(), [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
    "leading": (LeadingGrid(), [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]),
    "leading offset": (LeadingGrid(1), [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]),
    "trailing": (TrailingGrid(), [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
    "linspace early": (ChainGrid(True), [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]),
    "leading early": (LeadingGrid(0, True), [900, 810, 720, 630, 540, 450, 360, 270, 180, 90]),
}


@pytest.mark.parametrize("name", TIMESTEPS)
def test_timesteps_are_those_of_the_paper(name):
    grid, timesteps = TIMESTEPS[name]
    levels = grid.levels(CHAIN, 9)
    np.testing.assert_array_equal(levels, CHAIN.level(jnp.asarray(timesteps, jnp.float32) + 1))
    np.testing.assert_allclose(grid.times(CHAIN, 9), np.asarray(timesteps) + 1, rtol=1e-6)
    between = grid.process(CHAIN, 9)
    assert (between.t1, between.t0) == (timesteps[0] + 1, timesteps[-1] + 1)
    # The process between the ends has the same steps, and is itself between them.
    np.testing.assert_array_equal(grid.levels(between, 9), levels)
    assert grid.process(between, 9) is between
    np.testing.assert_array_equal(FixedSteps(9, grid).levels(between), levels)


def test_all_steps_are_all_steps_of_the_chain():
    for grid in (ChainGrid(), LeadingGrid(), TrailingGrid()):
        assert grid.process(CHAIN, 999) is CHAIN
        np.testing.assert_array_equal(grid.levels(CHAIN, 999), CHAIN.level(jnp.arange(1000.0, 0.0, -1)))


def test_a_path_ends_and_is_denoised_where_the_grid_ends():
    model, grid = gaussian(2), TrailingGrid()
    x1 = jnp.asarray([[0.3, -1.2]])
    x = sgm.sample(CHAIN, model, jr.key(0), x1=x1, method=DDIM(3, grid=grid))
    for k, s in ((1000, 750), (750, 500), (500, 250)):
        estimate = model.predict(CHAIN.level(float(k)), x1[0])
        x1 = (CHAIN.alpha(float(s)) * estimate.denoised + CHAIN.sigma(float(s)) * estimate.noise)[None]
    np.testing.assert_allclose(x, model.denoise(CHAIN, 250.0, x1[0])[None], rtol=1e-5)


def test_a_grid_from_within_takes_the_ends_of_another():
    chain = DiscreteChain(ZeroTerminalSNR(LinearBetas(100)))
    grid = WithinGrid(LeadingGrid(), KarrasGrid())
    between = grid.process(chain, 4)
    assert (between.t1, between.t0) == (81, 1)
    ratios = np.exp(np.asarray(grid.levels(chain, 4), np.float64)) ** (1 / 7)
    np.testing.assert_allclose(np.diff(ratios), np.mean(np.diff(ratios)), rtol=1e-4)
    np.testing.assert_allclose(grid.levels(chain, 4)[jnp.asarray([0, -1])], chain.level(jnp.asarray([81.0, 1.0])))


def test_shifted_times_are_those_of_the_paper():
    sde, shift = sgm.Rectified(0.01, 1.0), 3.0
    t = np.asarray(ShiftedGrid(shift).times(sde, 20), np.float64)
    assert (t[0], t[-1]) == (1.0, np.float32(0.01))
    even = t / (shift - (shift - 1) * t)
    np.testing.assert_allclose(np.diff(even), np.mean(np.diff(even)), rtol=1e-4)
    np.testing.assert_allclose(t, shift * even / (1 + (shift - 1) * even), rtol=1e-6)
    np.testing.assert_allclose(ShiftedGrid(1.0).times(sde, 20), sgm.solve.UniformGrid().times(sde, 20), rtol=1e-5)


def test_a_noised_example_is_led_on_from_its_own_time():
    start, model = (600.0, jnp.zeros((2, 2))), gaussian(2)
    x = sgm.sample(CHAIN, model, jr.key(0), start=start, method=DDIM(3, grid=TrailingGrid()))
    assert x.shape == (2, 2) and bool(jnp.all(jnp.isfinite(x)))
    with pytest.raises(ValueError, match="LeadingGrid: steps = 3 begin at k = 751, but the process ends at 600; pass"):
        sgm.sample(CHAIN, model, jr.key(0), start=start, method=DDIM(3, grid=LeadingGrid()))
    with pytest.raises(ValueError, match=r"TrailingGrid: the process ends at k = 600.5; pass a whole k"):
        sgm.sample(CHAIN, model, jr.key(0), start=(600.5, start[1]), method=DDIM(3, grid=TrailingGrid()))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (lambda: ChainGrid().levels(CHAIN, 1000), "ChainGrid: steps = 1000, but from k = 1000 to 1 there are 999"),
        (lambda: ChainGrid(True).levels(CHAIN, 999), "ChainGrid: steps = 999, but from k = 1000 to 1 there are 998"),
        (
            lambda: TrailingGrid().levels(CHAIN, 1000),
            "TrailingGrid: steps = 1000, but from k = 1000 to 1 there are 999",
        ),
        (lambda: LeadingGrid(1).levels(CHAIN, 999), "LeadingGrid: steps = 999 with offset = 1 begin at k = 1001, but"),
        (lambda: LeadingGrid().levels(CHAIN, 1000), "LeadingGrid: steps = 1000 with offset = 0 begin at k = 1, but"),
        (lambda: LeadingGrid(-1), "LeadingGrid: offset = -1; pass offset >= 0"),
        (lambda: TrailingGrid().levels(sgm.VP(), 9), "TrailingGrid: the process is a VP; pass a DiscreteChain or"),
        (
            lambda: FixedSteps(9, TrailingGrid()).levels(CHAIN),
            r"TrailingGrid: 9 steps go from t = 1000.0 to 100.0, but",
        ),
        (lambda: ShiftedGrid(0.0), "ShiftedGrid: shift = 0.0; pass shift > 0"),
    ],
)
def test_steps_that_do_not_fit_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        levels()
