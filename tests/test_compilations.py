"""Another plain number is not another compilation: numbers of processes, models and methods are traced."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.likelihood import DiscretisedGaussian, discrete_log_prob
from sgm.model import Clipped
from sgm.solve import FixedSteps, KarrasGrid
from sgm.training.times import NormalLogSNR
from sgm.training.weightings import KarrasWeighting

KEY, X, LEVELS = jr.key(0), jnp.ones((3, 2)), jnp.ones((3, 2), int)
MODEL, CHAIN, EXACT = sgm.model.Gaussian(jnp.zeros(2), jnp.eye(2)), sgm.DiscreteChain(np.full(4, 0.1)), sgm.Exact()
COMPILED, TRACED = [], []


def draw(sde=sgm.VP(), model=MODEL, **options):
    return sgm.sample(sde, model, KEY, 3, **options)


def density(sde=sgm.VP(), model=MODEL, **options):
    return sgm.log_prob(sde, model, X, trace=EXACT, **options)


def bound(model=MODEL, **options):
    return sgm.elbo(CHAIN, model, X, KEY, **options)


def loss(sde=sgm.VP(), **options):
    return sgm.score_matching_loss(sde, MODEL, X, KEY, **options)


def stepping(rtol):
    return sgm.ProbabilityFlow(stepping=diffrax.PIDController(rtol=rtol, atol=1e-3))


CALLS = {
    "sample, DDIM.eta": (lambda v: draw(method=sgm.DDIM(2, eta=v)), 0.1, 0.2),
    "sample, EDMHeun.churn": (lambda v: draw(method=sgm.EDMHeun(2, churn=v)), 0.1, 0.2),
    "sample, PredictorCorrector.snr": (lambda v: draw(method=sgm.PredictorCorrector(2, snr=v)), 0.1, 0.2),
    "sample, KarrasGrid.power": (lambda v: draw(method=sgm.DDIM(2, grid=KarrasGrid(v))), 5.0, 6.0),
    "sample, FixedSteps": (lambda v: draw(method=sgm.ProbabilityFlow(stepping=FixedSteps(2, KarrasGrid(v)))), 5.0, 6.0),
    "sample, PIDController.rtol": (lambda v: draw(method=stepping(v)), 1e-2, 2e-2),
    "sample, VE.sigma_max": (lambda v: draw(sgm.VE(sigma_max=v), method=sgm.DDIM(2)), 50.0, 60.0),
    "sample, Linear.beta_max": (lambda v: draw(sgm.VP(sgm.sde.Linear(0.1, v)), method=sgm.DDIM(2)), 15.0, 16.0),
    "sample, Clipped.low": (lambda v: draw(model=Clipped(MODEL, v), method=sgm.DDIM(2)), -1.0, -2.0),
    "log_prob, VE.sigma_max": (lambda v: density(sgm.VE(sigma_max=v)), 50.0, 60.0),
    "log_prob, Clipped.low": (lambda v: density(model=Clipped(MODEL, v)), -2.0, -3.0),
    "log_prob, PIDController.rtol": (lambda v: density(controller=diffrax.PIDController(v, 1e-3)), 1e-2, 2e-2),
    "discrete_log_prob, low": (
        lambda v: discrete_log_prob(sgm.VP(), MODEL, LEVELS, KEY, count=4, low=v, high=1.0, trace=EXACT),
        -1.0,
        -2.0,
    ),
    "elbo, Clipped.low": (lambda v: bound(Clipped(MODEL, v)), -1.0, -2.0),
    "elbo, DiscretisedGaussian.low": (lambda v: bound(reconstruction=DiscretisedGaussian(8, v)), -1.0, -2.0),
    "score_matching_loss, VE.sigma_max": (lambda v: loss(sgm.VE(sigma_max=v)), 50.0, 60.0),
    "score_matching_loss, KarrasWeighting": (lambda v: loss(weighting=KarrasWeighting(v)), 0.5, 0.6),
    "score_matching_loss, NormalLogSNR": (lambda v: loss(times=NormalLogSNR(v)), -1.0, -1.1),
}


@pytest.fixture(scope="module", autouse=True)
def _count_compilations():
    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            COMPILED.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow_except(
    "log_prob, PIDController.rtol",
    "sample, FixedSteps",
    "sample, VE.sigma_max",
    "score_matching_loss, KarrasWeighting",
    "elbo, Clipped.low",
)
@pytest.mark.parametrize("name", CALLS)
def test_another_number_compiles_nothing(name):
    call, first, second = CALLS[name]
    jax.clear_caches()
    before = len(COMPILED)
    one = call(first)
    compiled = len(COMPILED)
    assert compiled > before
    other = call(second)
    assert len(COMPILED) == compiled
    assert one.shape == other.shape


class Counted(sgm.model.AbstractModel):
    """Counts how often `model` is traced."""

    model: sgm.model.AbstractModel
    units = property(lambda self: self.model.units)
    shape = property(lambda self: self.model.shape)

    def predict(self, level, u, cond=None, key=None):
        TRACED.append(level)
        return self.model.predict(level, u, cond, key)


@pytest.mark.parametrize("call", [draw, density], ids=lambda call: call.__name__)
def test_a_solve_traces_its_model_once(call):
    TRACED.clear()
    with jax.numpy_dtype_promotion("standard"):  # Diffrax has it in its loop, and a trace is of one setting.
        call(model=Counted(MODEL))
    assert len(TRACED) == 1
