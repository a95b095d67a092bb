"""Samplers reproduce the numbers that the scheduler tests of huggingface/diffusers state for their dummy model.

Each test names its file of tests/schedulers there and the commit at which it was read. A number is sum |x| of the
result, or mean |x| where no sum is stated; tolerances are theirs, 1e-2 and 1e-3, or tighter. Theirs are computed in
single precision; here it is double, so that what is left between the two is their rounding alone.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from solve.diffusers import (
    NOISE,
    SAMPLE,
    Dummy,
    Linspace,
    Unscaled,
    between,
    clipped,
    levels,
    on,
    solve,
    torch_normal,
    walk,
)

from sgm.model import Estimate, FixedSmall, Interpolated, Karras, Noise, Velocity
from sgm.sde import VE, DiscreteChain, cos_of, cosine_betas, linear_betas
from sgm.solve import DDIM, Ancestral, DPMSolverPP, EDMHeun, KarrasGrid, LogSNRGrid, UniformGrid

pytestmark = pytest.mark.usefixtures("float64")

LINEAR = DiscreteChain(linear_betas())
COSINE = DiscreteChain(cosine_betas())


def total(x):
    return np.abs(np.asarray(x)).sum()


@pytest.mark.parametrize("prediction, number", [(Noise(), 258.9606), (Velocity(), 202.0296)])
def test_ddpm(prediction, number):
    """test_scheduler_ddpm.py at 46efd816ff4b5ad6d1378e496ba33ad5563eceeb: all steps, fixed_small, clip_sample."""
    model = clipped(Dummy(on(LINEAR), prediction))
    x = walk(Ancestral(), model, levels(LINEAR, np.arange(999, -2, -1)), SAMPLE, torch_normal(0, 1000))
    assert total(x) == pytest.approx(number, abs=3e-3)


def test_ddpm_strided():
    """test_scheduler_unclip.py at 50d5b9ddb354be51f7fddc068720cc96812ad191: 25 steps of the cosine chain.

    Their last step has beta_0 / (1 - alpha_0), which is one but for its rounding, in front of x0.
    """
    t = np.append(np.rint(np.linspace(999, 0, 25)), -1)
    x = walk(Ancestral(), clipped(Dummy(on(COSINE))), levels(COSINE, t), SAMPLE, torch_normal(0, 25))
    beta = np.float32(COSINE.betas.values[0])
    rounding = beta / (np.float32(1) - (np.float32(1) - beta))
    assert total(x) * rounding == pytest.approx(258.2044983, abs=3e-3)


@pytest.mark.parametrize(
    "t, s, number",
    [(420, 400, 0.14771), (980, 960, 0.32460), (487, 486, 0.00979), (999, 998, 0.02), (0, 0, 0.0), (0, -1, 0.0)],
)
def test_small_variance(t, s, number):
    """test_scheduler_ddim.py at 1cf1528a9171a993139d6c93f7a63e520b8db040, and test_scheduler_ddpm.py as above."""
    assert jnp.exp(log_variance(FixedSmall(), LINEAR, t, s)) == pytest.approx(number, abs=1e-5)


@pytest.mark.parametrize("t, number", [(487, 0.0549625), (999, 0.9994987)])
def test_small_variance_of_the_cosine_chain(t, number):
    """test_scheduler_unclip.py as above, a standard deviation."""
    assert jnp.exp(log_variance(FixedSmall(), COSINE, t, t - 1) / 2) == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize("t, number", [(487, -5.7998052), (999, -0.0010011)])
def test_interpolated_variance(t, number):
    """test_scheduler_unclip.py as above: learned_range at the output 0.5."""
    assert log_variance(Interpolated(), COSINE, t, t - 1) == pytest.approx(number, abs=1e-6)


def log_variance(variance, chain, t, s):
    at_t, at_s = levels(chain, np.asarray([t, s]))
    zero = jnp.zeros(())
    return variance.log_variance(at_s, at_t, Estimate(zero, zero, zero, zero + 0.5))


@pytest.mark.parametrize(
    "prediction, first, to_data, number",
    [
        (Noise(), 1e-4, True, 172.0067),
        (Velocity(), 1e-4, True, 52.5302),
        (Noise(), 0.01, True, 149.8295),
        (Noise(), 0.01, False, 149.0784),
    ],
)
def test_ddim(prediction, first, to_data, number):
    """test_scheduler_ddim.py at 1cf1528a9171a993139d6c93f7a63e520b8db040: t = 900, 800 ... 0, clip_sample.

    Unless `set_alpha_to_one` they end at the noise level of t = 0.
    """
    chain = between(DiscreteChain(linear_betas(first=first)), 0, 900)
    model = clipped(Dummy(on(chain), prediction))
    x = solve(DDIM(steps=9, grid=UniformGrid()), chain, model, SAMPLE)
    x = model.denoise(chain, chain.t0, x) if to_data else x
    assert total(x) == pytest.approx(number, abs=1e-3)


@pytest.mark.slow
def test_ddim_from_noisy_data():
    """test_scheduler_ddim.py as above, the last two of its times."""
    chain = between(LINEAR, 0, 100)
    model = clipped(Dummy(on(chain)))
    x = solve(DDIM(steps=1, grid=UniformGrid()), chain, model, noisy(chain))
    assert total(model.denoise(chain, chain.t0, x)) == pytest.approx(354.5418, abs=1e-3)


@pytest.mark.parametrize(
    "prediction, steps, grid, number, tolerance",
    [
        (Noise(), 10, Linspace(), 0.3301, 1e-4),
        (Velocity(), 10, Linspace(), 0.2251, 1e-4),
        # It is 0.20965 at the levels of the rounded times; 0.2092 at those of their release 0.42.1.
        (Velocity(), 9, KarrasGrid(), 0.2096, 1e-3),
        (Velocity(), 9, LogSNRGrid(), 0.1554, 1e-4),
    ],
)
def test_multistep_dpm_solver(prediction, steps, grid, number, tolerance):
    """test_scheduler_dpm_multi.py at 9519ffcf11640ce5afee166f2778a242b2be4039: order 2 to the noise level of t = 0.

    With karras and lu sigmas they have a tenth step, of length zero.
    """
    x = solve(DPMSolverPP(steps, grid=grid), LINEAR, Dummy(on(LINEAR), prediction), SAMPLE)
    assert total(x) / x.size == pytest.approx(number, abs=tolerance)


def test_multistep_dpm_solver_from_noisy_data():
    """test_scheduler_dpm_multi.py as above, the last five of its ten steps."""
    chain = between(LINEAR, 0, 500)
    x = solve(DPMSolverPP(steps=5, grid=Linspace()), chain, Dummy(on(chain)), noisy(chain))
    assert total(x) == pytest.approx(318.4111, abs=3e-3)


def noisy(chain):
    mean, std = chain.marginal(chain.t1, jnp.asarray(SAMPLE))
    return mean + std * NOISE


def test_edm_euler():
    """test_scheduler_edm_euler.py at 216cddc49699ec412e149ddadfbd063b324e7a54."""
    ve = VE(0.002, 80.0)
    model = Dummy(edm_time, Karras(0.5))
    x = solve(DDIM(steps=9, grid=KarrasGrid()), ve, model, SAMPLE * np.hypot(80, 1))
    assert total(model.denoise(ve, ve.t0, x)) == pytest.approx(34.1855, abs=1e-3)


def test_edm_multistep_dpm_solver():
    """test_scheduler_edm_dpmsolver_multistep.py at 6cb6eb3ee32e8da48aa0ca62ab8cca953e78066a, the last five of its ten
    steps, the fifth of length zero: from noisy data, with a network whose input is not scaled."""
    sigma = float(((5 * 0.002 ** (1 / 7) + 4 * 80 ** (1 / 7)) / 9) ** 7)
    model = Dummy(edm_time, Unscaled(Karras(0.5)))
    x = solve(DPMSolverPP(steps=4, grid=KarrasGrid()), VE(0.002, sigma), model, SAMPLE + sigma * NOISE)
    assert total(x) == pytest.approx(8.1661, abs=1e-3)


def edm_time(level):
    return level / 4


# In sigma space their chain has 1100 steps: sigma at each t, then ten sigmas from the highest down, and t of the level.
TABLE, TIMES = np.sqrt(1 / np.cumprod(1 - linear_betas(1100)) - 1), np.arange(1100.0)


def linspace():
    sigmas = np.interp(np.linspace(1099, 0, 10), TIMES, TABLE)
    return sigmas, lambda level: jnp.interp(jnp.exp(level), TABLE, TIMES)


def karras():
    ve = VE(TABLE[0], TABLE[-1])
    return jnp.exp(KarrasGrid().levels(ve, 9)), lambda level: jnp.interp(level, np.log(TABLE), TIMES)


def in_sigma_space(sampler, times, prediction, noise=None):
    """x at sigma = 0, by a last step of DDIM, from SAMPLE times the highest sigma."""
    sigmas, time = times()
    at = jnp.log(jnp.append(sigmas, 0.0))
    model, unscaled = Dummy(time, prediction), Dummy(time, Unscaled(prediction))
    u = walk(sampler, model, at[:-1], cos_of(at[0]) * sigmas[0] * SAMPLE, noise, unscaled)
    return walk(DDIM(), model, at[-2:], u, unscaled=unscaled)


@pytest.mark.parametrize("times, number, tolerance", [(linspace, 10.0807, 1e-3), (karras, 124.52299499511719, 1e-2)])
def test_euler(times, number, tolerance):
    """test_scheduler_euler.py at 0bc2ddcb0ad446cb16af385c350c57c9e418b94f."""
    assert total(in_sigma_space(DDIM(), times, Noise())) == pytest.approx(number, abs=tolerance)


@pytest.mark.parametrize("prediction, number", [(Noise(), 152.3192), (Velocity(), 108.4439)])
def test_ancestral_euler(prediction, number):
    """test_scheduler_euler_ancestral.py at 4004496d6bc4131d08ac7d01a44060632bfef40d: DDIM of eta = 1."""
    x = in_sigma_space(DDIM(eta=1.0), linspace, prediction, torch_normal(0, 9))
    assert total(x) == pytest.approx(number, abs=1e-3)


@pytest.mark.parametrize(
    "times, number, tolerance", [(linspace, 0.1233, 1e-4), (karras, 768 * 1.9869554535034695e-07, 1e-6)]
)
def test_heun(times, number, tolerance):
    """test_scheduler_heun.py at 693db7d9114ffcd245e71afed6d7ad976c3ee49a."""
    assert total(in_sigma_space(EDMHeun(), times, Noise())) == pytest.approx(number, abs=tolerance)
