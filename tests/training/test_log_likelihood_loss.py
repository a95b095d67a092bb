"""Maximum likelihood through the flow, beside exact densities and entropies."""

import dataclasses
import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from networks import randomised

import sgm
from sgm.data import Arrays
from sgm.experiment import Experiment
from sgm.flags import from_flags
from sgm.sde import LearnedLogSNR
from sgm.serial import from_json, to_json
from sgm.training import LogLikelihoodLoss
from sgm.training.step import Recipe, held_out_loss

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

COVARIANCE = np.asarray([[1.0, 0.6], [0.6, 0.5]])
GAUSSIAN = sgm.model.Gaussian(jnp.zeros(2), jnp.asarray(COVARIANCE))
ENTROPY = 0.5 * math.log(np.linalg.det(2 * math.pi * math.e * COVARIANCE))


def score_model(width=16, **options):
    network = randomised(sgm.nn.MLP((2,), width, 1, key=jr.key(0)))
    return sgm.ScoreModel(network, sgm.model.Karras(0.7), shape=(2,), **options)


def test_the_loss_of_an_exact_model_is_its_density():
    x = GAUSSIAN.sample(jr.key(0), 64)
    loss = LogLikelihoodLoss(sgm.Exact(), tolerance=1e-4)
    expected = -np.mean(jax.jit(jax.vmap(GAUSSIAN.log_prob))(x)) / 2

    def value(loss):
        return jax.jit(lambda key: loss(sgm.VP(), GAUSSIAN, x, key))

    assert float(value(loss)(jr.key(1))) == pytest.approx(float(expected), abs=2e-3)
    # Probes are drawn afresh by every key, around the same mean.
    drawn = value(LogLikelihoodLoss())
    draws = [float(drawn(jr.key(seed))) for seed in range(8)]
    assert np.std(draws) > 0 and abs(np.mean(draws) - expected) < 5 * np.std(draws) / math.sqrt(len(draws)) + 2e-3


@pytest.mark.slow
def test_units_of_the_data_do_not_change_it():
    x = GAUSSIAN.sample(jr.key(0), 8)
    in_units = score_model(units=sgm.nn.Units(mean=2.0, std=3.0))
    values = [LogLikelihoodLoss()(sgm.VP(), *of, jr.key(1)) for of in ((score_model(), x), (in_units, 3 * x + 2))]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)


@pytest.mark.slow
def test_parts_of_a_batch_share_the_randomness_of_the_whole():
    x, steps = GAUSSIAN.sample(jr.key(0), 8), []
    for accumulate in (1, 4):
        recipe = Recipe(sgm.VP(), LogLikelihoodLoss(), optax.sgd(0.1), jr.key(3), accumulate=accumulate)
        state, metrics = eqx.filter_jit(recipe.step)(recipe.start(score_model()), (x, None))
        steps.append((metrics["loss"], state.model.network.outlet.kernel))
        held_out = [held_out_loss(recipe, dataclasses.replace(state, step=step), (x, None)) for step in jnp.arange(2)]
        assert held_out[0] == held_out[1]
    for one, four in zip(*steps, strict=True):
        np.testing.assert_allclose(one, four, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_training_reaches_the_entropy():
    data = Arrays(np.asarray(GAUSSIAN.sample(jr.key(0), 6144)), held_out=np.arange(6144) >= 4096)
    model = score_model(32)
    how = {"steps": 150, "batch_size": 128, "optimiser": sgm.training.Adam(1e-2), "average_decay": 0.9}
    sde, model, history = sgm.train(sgm.VP(), model, data, jr.key(2), loss=LogLikelihoodLoss(), progress=False, **how)
    x, _ = data.rows("test", 0, 2048)
    surprise = -np.asarray(sgm.log_prob(sde, model, x, trace=sgm.Exact()))
    exact = -np.asarray(jax.vmap(GAUSSIAN.log_prob)(jnp.asarray(x)))
    # The excess over the truth on the same examples is the divergence of the model, without their noise.
    excess = float(np.mean(surprise - exact))
    assert history["loss"][0] > ENTROPY / 2 + 0.1
    assert -0.01 < excess < 0.03
    assert abs(np.mean(surprise) - ENTROPY) < 0.03 + 3 * np.std(surprise) / math.sqrt(len(x))


def test_a_learned_schedule_and_a_wrong_tolerance_are_refused():
    with pytest.raises(ValueError, match="LogLikelihoodLoss: tolerance = 0; pass tolerance > 0"):
        LogLikelihoodLoss(tolerance=0)
    data = Arrays(np.asarray(GAUSSIAN.sample(jr.key(0), 16)))
    sde = sgm.VP(LearnedLogSNR(width=4))
    with pytest.raises(ValueError, match=r"LearnedLogSNR: .* but the loss is of LogLikelihoodLoss"):
        sgm.train(sde, score_model(), data, jr.key(0), steps=1, batch_size=8, loss=LogLikelihoodLoss())


def test_it_is_named_by_a_flag_and_kept_in_a_file():
    begun = Experiment(data=sgm.data.Digits(), network=partial(sgm.nn.MLP, width=16))
    flags = ["--loss", "LogLikelihoodLoss", "--loss.trace", "Exact", "--loss.tolerance", "1e-4"]
    experiment = from_flags(Experiment, flags, begun)
    assert experiment.loss == LogLikelihoodLoss(sgm.Exact(), tolerance=1e-4)
    assert from_json(to_json(experiment), Experiment).loss == experiment.loss
