import math

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import FOUR, PROCESSES, Shifted, gaussian, mixture, moments_agree

import sgm
from sgm.model import Empirical, FixedLarge, Gaussian
from sgm.sde import linear_betas, sohl_dickstein_betas
from sgm.solve import ChainGrid, KarrasGrid

DETERMINISTIC = {
    "DDIM": (lambda n: sgm.DDIM(n), 1),
    "DPMSolverPP 1": (lambda n: sgm.DPMSolverPP(n, 1), 1),
    "DPMSolverPP 2": (lambda n: sgm.DPMSolverPP(n, 2), 2),
    "DPMSolverPP 3": (lambda n: sgm.DPMSolverPP(n, 3), 3),
    "SingleDPMSolverPP 2": (lambda n: sgm.SingleDPMSolverPP(n, 2), 2),
    "SingleDPMSolverPP 3": (lambda n: sgm.SingleDPMSolverPP(n, 3), 3),
    "EDMHeun": (lambda n: sgm.EDMHeun(n), 2),
}
STOCHASTIC = {
    "Ancestral": sgm.Ancestral(200),
    "Ancestral large": sgm.Ancestral(200, FixedLarge()),
    "DDIM eta": sgm.DDIM(200, eta=0.6),
    "SDEDPMSolverPP": sgm.SDEDPMSolverPP(50),
    "SDEDPMSolverPP 3": sgm.SDEDPMSolverPP(50, 3),
    "EDMHeun churn": sgm.EDMHeun(100, churn=30.0),
    "PredictorCorrector": sgm.PredictorCorrector(200),
}
CHAIN = sgm.DiscreteChain(linear_betas(1000))


@pytest.mark.slow_except("DPMSolverPP 2", "EDMHeun")
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_orders_of_convergence(name, float64):
    make, order = DETERMINISTIC[name]
    model, tight = mixture(2), diffrax.PIDController(rtol=1e-10, atol=1e-10)
    truth = sgm.sample(sgm.VP(), model, jr.key(0), 64, method=sgm.ProbabilityFlow(diffrax.Dopri8(), tight))
    steps = np.asarray([160, 320])
    errors = [
        float(jnp.abs(sgm.sample(sgm.VP(), model, jr.key(0), 64, method=make(int(n))) - truth).mean()) for n in steps
    ]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.2


@pytest.mark.slow_except("Ancestral", "PredictorCorrector", "SDEDPMSolverPP")
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_draw_the_gaussian(name):
    model = gaussian(2)
    x = sgm.sample(sgm.VP(), model, jr.key(1), 5000, method=STOCHASTIC[name])
    moments_agree(np.asarray(x), model, 5000)


@pytest.mark.slow_except("DPMSolverPP-VE", "Ancestral-chain")
@pytest.mark.parametrize("process", [*FOUR, "chain"])
@pytest.mark.parametrize(
    "method", [sgm.Ancestral(300), sgm.DPMSolverPP(30), sgm.EDMHeun(40)], ids=lambda method: type(method).__name__
)
def test_samplers_serve_every_process(process, method):
    sde, model = CHAIN if process == "chain" else PROCESSES[process], gaussian(2)
    moments_agree(np.asarray(sgm.sample(sde, model, jr.key(2), 5000, method=method)), model, 5000)


@pytest.mark.slow
def test_ancestral_sampling_is_exact_in_both_limits():
    """FixedLarge for data N(0, I), after any number of steps; FixedSmall for data that are one point."""
    normal = Gaussian(jnp.zeros(50), jnp.eye(50))
    end = diffrax.SaveAt(t0=True)
    x = sgm.sample(sgm.VP(), normal, jr.key(3), 2000, method=sgm.Ancestral(5, FixedLarge()), saveat=end)
    np.testing.assert_allclose(x.var(), 1, atol=5 * math.sqrt(2 / x.size))
    point = Empirical(jnp.asarray([[0.3, -0.8]]))
    x = sgm.sample(sgm.VP(), point, jr.key(4), 5000, method=sgm.Ancestral(5), saveat=end)
    np.testing.assert_allclose((x[:, 0] - point.points[0]).std(), sgm.VP().sigma(sgm.VP().t0), rtol=0.05)


@pytest.mark.slow
def test_a_chain_of_large_steps_has_the_variance_of_its_recursion():
    """Of all its own steps, and of strides, for data N(0, s^2): Var u_s = a^2 Var u_t + v, in float64."""
    chain, data = sgm.DiscreteChain(sohl_dickstein_betas(40)), 0.25
    model = Gaussian(jnp.zeros(50), data * jnp.eye(50))
    kept = np.cumprod(1 - chain.betas.values)
    for steps in (39, 13):
        k = np.rint(np.linspace(40, 1, steps + 1)).astype(int)
        variance = 1.0
        for t, s in zip(kept[k[:-1] - 1], kept[k[1:] - 1], strict=True):
            r = t / (1 - t) * (1 - s) / s
            denoised = np.sqrt(t) * data / (t * data + 1 - t)
            variance = (r * np.sqrt(s / t) + (1 - r) * np.sqrt(s) * denoised) ** 2 * variance + (1 - r) * (1 - s)
        method = sgm.Ancestral(steps, grid=ChainGrid())
        x = sgm.sample(chain, model, jr.key(5), 4000, method=method, saveat=diffrax.SaveAt(t0=True))[:, 0]
        assert abs(variance / model.marginal(chain, 1.0).eigenvalues[0] - 1) > 0.02  # the chain's own error is seen
        np.testing.assert_allclose(x.var(), variance, rtol=5 * math.sqrt(2 / x.size))


@pytest.mark.slow
def test_corrections_mend_what_the_predictor_misses():
    """Of the standard deviation, for centred data of one standard deviation."""
    model, end = Gaussian(jnp.zeros(50), 0.25 * jnp.eye(50)), diffrax.SaveAt(t0=True)

    def error(corrections):
        method = sgm.PredictorCorrector(20, corrections)
        return abs(float(sgm.sample(sgm.VP(), model, jr.key(10), 2000, method=method, saveat=end).std()) / 0.5 - 1)

    assert error(40) < 0.4 * error(0)


@pytest.mark.slow
def test_samplers_meet_where_their_papers_say():
    def draw(method):
        return sgm.sample(CHAIN, mixture(2), jr.key(6), 200, method=method)

    steps = {"grid": ChainGrid()}
    np.testing.assert_allclose(draw(sgm.DDIM(50, 1.0, **steps)), draw(sgm.Ancestral(50, **steps)), rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(draw(sgm.DPMSolverPP(50, 1, **steps)), draw(sgm.DDIM(50, **steps)), rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(
        draw(sgm.SingleDPMSolverPP(50, 1, **steps)), draw(sgm.DDIM(50, **steps)), rtol=1e-3, atol=2e-4
    )


EVALUATIONS = {
    "Ancestral": (sgm.Ancestral(7), 7),
    "DDIM": (sgm.DDIM(7), 7),
    "DPMSolverPP": (sgm.DPMSolverPP(7, 3), 7),
    "SDEDPMSolverPP": (sgm.SDEDPMSolverPP(7), 7),
    "SingleDPMSolverPP 2": (sgm.SingleDPMSolverPP(7, 2), 14),
    "SingleDPMSolverPP 3": (sgm.SingleDPMSolverPP(7, 3), 21),
    "EDMHeun": (sgm.EDMHeun(7), 14),
    "PredictorCorrector": (sgm.PredictorCorrector(7, corrections=2), 21),
}


@pytest.mark.slow_except("Ancestral", "DDIM", "DPMSolverPP", "SingleDPMSolverPP 3", "EDMHeun", "PredictorCorrector")
@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluations_are_those_of_the_paper(name):
    """And one for the denoised end."""
    method, expected = EVALUATIONS[name]
    calls = []

    def network(level, u, cond, key=None):
        jax.debug.callback(lambda: calls.append(1))
        return -u

    model = sgm.ScoreModel(network, shape=(3,))
    jax.block_until_ready(sgm.sample(sgm.VP(), model, jr.key(0), method=method))
    jax.effects_barrier()
    assert len(calls) == expected + 1


@pytest.mark.slow_except("DPMSolverPP")
@pytest.mark.parametrize(
    "method", [sgm.DDIM(20), sgm.DPMSolverPP(20, 3), sgm.EDMHeun(10)], ids=lambda method: type(method).__name__
)
def test_samples_move_with_the_condition(method):
    """Of N(c, std^2 I), a sample's derivative with respect to c is that of its formula, by differences."""
    model = Shifted(0.5)

    def first(c):
        return sgm.sample(sgm.VP(), model, jr.key(7), cond=sgm.Condition(params=c), method=method)[0]

    c, step = jnp.asarray([0.2, -0.4]), 1e-2
    slope = (first(c.at[0].add(step)) - first(c.at[0].add(-step))) / (2 * step)
    np.testing.assert_allclose(jax.grad(first)(c)[0], slope, rtol=1e-3)
    assert abs(slope) > 0.9


@pytest.mark.slow
def test_memory_of_a_gradient_grows_as_the_root_of_the_steps():
    """Of a network that takes none itself, so that what is kept of the steps is nearly all."""

    def memory(steps):
        def loss(weight):
            model = sgm.ScoreModel(lambda level, u, cond, key=None: jnp.tanh(weight * u), shape=(10_000,))
            return jnp.sum(sgm.sample(sgm.VP(), model, jr.key(9), 8, method=sgm.DPMSolverPP(steps)) ** 2)

        return jax.jit(jax.grad(loss)).lower(jnp.asarray(0.5)).compile().memory_analysis().temp_size_in_bytes

    assert memory(1000) <= 1.2 * math.sqrt(10) * memory(100)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sgm.Ancestral(0), "Ancestral: steps = 0; pass steps >= 1"),
        (lambda: sgm.DDIM(10, eta=1.5), "DDIM: eta = 1.5; pass 0 <= eta <= 1"),
        (lambda: sgm.DPMSolverPP(10, 4), "DPMSolverPP: order = 4; pass 1, 2 or 3"),
        (lambda: sgm.SingleDPMSolverPP(10, 0), "SingleDPMSolverPP: order = 0; pass 1, 2 or 3"),
        (lambda: sgm.EDMHeun(10, churn=-1.0), "EDMHeun: churn = -1.0; pass churn >= 0"),
        (lambda: sgm.PredictorCorrector(10, corrections=-1), "PredictorCorrector: corrections = -1; pass"),
        (lambda: sgm.PredictorCorrector(10, snr=2.0), "PredictorCorrector: snr = 2.0; pass 0 < snr < 1"),
        (lambda: KarrasGrid(0.0), "KarrasGrid: power = 0.0; pass power > 0"),
        (lambda: ChainGrid().times(sgm.VP(), 10), "ChainGrid: the process is a VP; pass a DiscreteChain"),
        (lambda: ChainGrid().times(CHAIN, 1000), "ChainGrid: steps = 1000, but from k = 1000 to 1 there are 999"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
