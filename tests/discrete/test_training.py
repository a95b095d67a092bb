"""The loss is the bound, and an experiment of categories is trained, drawn, evaluated, kept and loaded."""

import dataclasses
import itertools
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from categories import CHAINS, STEPS, lookup

import sgm
from sgm.data import Arrays, Heartbeat, Letters
from sgm.evaluation import C2ST, CategoricalBound, SlicedWasserstein
from sgm.experiment import Drawing, Evaluation, Experiment, load_config
from sgm.likelihood import ForwardEntropy
from sgm.model import CategoricalModel, Enumerated, Logits, network_shape
from sgm.nn import MLP, StepwisePerceptron
from sgm.sde import (
    AbsorbingChain,
    BinomialChain,
    HarmonicBetas,
    InformationSteps,
    LinearBetas,
    UniformChain,
    UniformSteps,
)
from sgm.serial import from_json, to_json
from sgm.solve import CategoricalAncestral
from sgm.stages import STAGES
from sgm.training import Adam, CategoricalLoss, Training


@pytest.mark.parametrize("times", [UniformSteps(), InformationSteps(0.3)], ids=lambda times: type(times).__name__)
def test_the_loss_is_the_bound(times):
    chain, n = CHAINS["uniform"], 6000
    model, x = lookup(chain), jnp.broadcast_to(jnp.asarray([2, 0]), (n, 2))
    bound = sgm.categorical_elbo(chain, model, x, jr.key(0), full=True)
    loss = CategoricalLoss(times)
    errors = jax.jit(lambda x: loss.errors(chain, model, loss.perturb(chain, model, x, jr.key(1))))(x)
    stderr = (float(jnp.std(errors)) + float(jnp.std(bound.value)) / 2) / n**0.5
    assert abs(float(jnp.mean(errors)) + float(jnp.mean(bound.value + bound.prior)) / 2) < 4 * stderr
    whole = jax.jit(lambda x: loss(chain, model, x, jr.key(1)))(x.astype(jnp.uint8))
    np.testing.assert_allclose(whole, jnp.mean(errors), rtol=1e-5)


def test_the_auxiliary_loss_is_the_cross_entropy():
    chain, n = CHAINS["binomial"], 3000
    model, x = lookup(chain), jnp.broadcast_to(jnp.asarray([1, 0]), (n, 2))
    losses = [CategoricalLoss(cross_entropy=c) for c in (0.0, 0.5)]
    drawn = jax.jit(lambda x: losses[0].perturb(chain, model, x, jr.key(1)))(x)
    plain, more = jax.jit(lambda drawn: [loss.errors(chain, model, drawn) for loss in losses])(drawn)
    place = int(np.argmax(np.asarray(drawn.x)[:, 0] == 0))
    step = jax.tree.map(lambda numbers: numbers[place], drawn.step)
    k = int(np.argmin(np.abs(chain.every_step.level - step.level))) + 1
    posterior = np.asarray(model.posterior(chain, k, drawn.x[place]))
    expected = -0.5 * (math.log(posterior[0, 1]) + math.log(posterior[1, 0])) / 2
    np.testing.assert_allclose(more[place] - plain[place], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="CategoricalLoss: cross_entropy = -1; pass cross_entropy >= 0"):
        CategoricalLoss(cross_entropy=-1)


def tiny(**changes):
    experiment = Experiment(
        data=Heartbeat(8, 4),
        network=partial(StepwisePerceptron, width=16, depth=2, readouts=50),
        sde=BinomialChain(HarmonicBetas(50), p=0.25),
        prediction=Logits(),
        loss=CategoricalLoss(),
        training=Training(steps=300, batch_size=100, optimiser=Adam(2e-2, warmup=20), preview_every=1000),
        sampler=CategoricalAncestral(),
        drawing=Drawing(n=16),
        metrics=(CategoricalBound(ForwardEntropy()), CategoricalBound(steps=10)),
        evaluation=Evaluation(n=100, batch_size=50),
    )
    return dataclasses.replace(experiment, **changes)


def test_an_experiment_is_trained_drawn_and_evaluated(tmp_path):
    experiment = tiny()
    for stage in STAGES.values():
        stage(experiment, tmp_path, None, 1)
    written = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]
    entropy = math.log(4)
    # What a model of independent bits would have is 8 (H(1/4)) = 4.5 nats.
    assert -2.5 < written["bound_2"]["value"] < -entropy + 4 * written["bound_2"]["stderr"]
    assert written["bound"]["value"] < written["bound_2"]["value"]
    assert written["truth_bits"]["value"] == -2
    for name in ("data", "samples", "samples_step_0000300", "heartbeat_samples", "process", "objective"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    chain, model = sgm.load(tmp_path)
    assert chain == experiment.sde
    x = np.asarray(sgm.sample(chain, model, jr.key(0), 200))
    assert np.mean(np.isfinite(experiment.data.exact_log_prob(x, {}))) > 0.5
    sgm.save(tmp_path / "saved", chain, model)
    again, saved = sgm.load(tmp_path / "saved")
    assert again == chain
    np.testing.assert_array_equal(x, sgm.sample(again, saved, jr.key(0), 200))


def test_experiments_of_categories_are_written_and_read():
    every = (
        tiny(),
        tiny(sde=AbsorbingChain(2, HarmonicBetas(9)), loss=CategoricalLoss(InformationSteps(0.2), 0.01)),
        tiny(data=Letters(8, 5), sde=UniformChain(5), network=partial(MLP, width=16), sampler=CategoricalAncestral(7)),
        load_config("heartbeat"),
        load_config("letters"),
    )
    for experiment in every:
        again = from_json(json.loads(json.dumps(to_json(experiment))), Experiment)
        assert to_json(again) == to_json(experiment)
        assert again.sde == experiment.sde and again.sampler == experiment.sampler
        chain, model = again.build()
        assert isinstance(model, CategoricalModel) and model.states == chain.states


@pytest.mark.slow
@pytest.mark.parametrize("chain", [UniformChain(4, HarmonicBetas(20)), AbsorbingChain(4, HarmonicBetas(20))])
def test_a_network_learns_letters(chain):
    """Under either chain, a perceptron comes within the exact model's reach in a few seconds."""
    data = Letters(4, 4, 0.5)
    model = CategoricalModel(
        MLP(network_shape(data.shape, chain.states), 64, 2, key=jr.key(0)), 4, chain.states, data=data
    )
    how = {"steps": 400, "batch_size": 256, "loss": CategoricalLoss(), "optimiser": Adam(5e-3, warmup=20)}
    chain, model, history = sgm.train(chain, model, data, jr.key(1), progress=False, average_decay=0.98, **how)
    assert np.isfinite(history["held_out_loss"][-1])
    x = data.rows("test", 0, 1000)[0]
    exact = sgm.model.MarkovSequence(chain, data.shape, data.initial, data.transitions)
    ours, best = (np.asarray(sgm.categorical_elbo(chain, part, x, jr.key(2))) for part in (model, exact))
    stderr = np.std(ours - best) / len(x) ** 0.5
    assert np.mean(best) < -data.entropy + 4 * np.std(best) / len(x) ** 0.5
    assert -4 * stderr < np.mean(best - ours) < 0.15


def test_a_chain_that_does_not_reach_its_prior_is_told():
    with pytest.warns(UserWarning, match="CategoricalLoss: at the end of UniformChain an entry is still up to"):
        CategoricalLoss().check(UniformChain(2, LinearBetas(4, 0.1, 0.2)))


@pytest.mark.slow
def test_metrics_of_samples_know_an_exact_model():
    """All draws of an exact model are heartbeats, whose levels are not dequantised."""
    data, chain = Heartbeat(), BinomialChain(HarmonicBetas(200), p=0.2)
    model, metrics = Enumerated(chain, data.examples), [C2ST(), SlicedWasserstein()]
    report = sgm.evaluate(chain, model, data, metrics, jr.key(0), n=200)
    rows = {row.name: row for row in report.rows}
    assert abs(rows["c2st"].value - 0.5) < 0.1
    assert rows["sliced_wasserstein"].value < 2 * rows["sliced_wasserstein_floor"].value


def test_a_last_step_that_the_model_does_not_keep_bounds_nothing():
    data, chain = Heartbeat(4, 2), BinomialChain(HarmonicBetas(STEPS), p=0.02)
    model = CategoricalModel(lambda level, u, cond, key=None: jnp.zeros_like(u), 2, data=data)
    metrics = [CategoricalBound(), CategoricalBound(reconstruction=ForwardEntropy())]
    modelled, entropy = (sgm.evaluate(chain, model, data, [metric], jr.key(0), n=20).rows[0] for metric in metrics)
    assert np.isfinite(modelled.value)
    assert np.isnan(entropy.value) and "no bound" in entropy.note


def test_the_bound_of_the_models_own_last_step_is_the_bound_to_the_bit():
    chain, examples = AbsorbingChain(2, HarmonicBetas(4)), np.asarray(list(itertools.product((0, 1), repeat=4)))
    model = Enumerated(chain, examples, np.random.default_rng(0).dirichlet(np.ones(16)))
    data = Arrays(np.repeat(examples, 20, axis=0).astype(np.uint8), grey_levels=2, held_out=0.8)
    columns = sgm.evaluate(chain, model, data, [CategoricalBound()], jr.key(0), progress=False).columns
    np.testing.assert_array_equal(columns["bound"], columns["bound_modelled"])


def test_mistakes_are_answered(types_unchecked):
    chain, data = BinomialChain(HarmonicBetas(STEPS)), Heartbeat(4, 2)
    model = CategoricalModel(MLP((1, 4, 1), 8, 1, key=jr.key(0)), 2, data=data)
    reals = Arrays(np.eye(4, dtype=np.float32).reshape(4, 1, 4, 1))
    how = {"steps": 1, "batch_size": 2, "progress": False}
    with pytest.raises(TypeError, match=r"Loss: BinomialChain is .*; pass for it the loss sgm.CategoricalLoss\(\)"):
        sgm.train(chain, model, data, jr.key(0), **how)
    with pytest.raises(ValueError, match="train: the data are real numbers, but the model is of 2 categories; pass a"):
        sgm.train(chain, model, reals, jr.key(0), loss=CategoricalLoss(), **how)
    with pytest.raises(
        TypeError, match=r"CategoricalLoss: sde is a VP; pass an instance such as sgm.BinomialChain\(\)"
    ):
        CategoricalLoss().check(sgm.VP())
    with pytest.raises(
        TypeError, match=r"Karras: BinomialChain is .*; pass for it the prediction sgm.model.Logits\(\)"
    ):
        Experiment(data=data, network=partial(MLP), sde=chain).build()
    with pytest.raises(TypeError, match=r"Logits: sde is a VP; pass an instance such as sgm.BinomialChain\(\)"):
        Experiment(data=data, network=partial(MLP), prediction=Logits()).build()
    with pytest.raises(
        TypeError, match=r"CategoricalBound: the process is a VP; pass a chain such as sgm.BinomialChain"
    ):
        gaussian = sgm.model.Gaussian(jnp.zeros(2), jnp.eye(2))
        sgm.evaluate(sgm.VP(), gaussian, Arrays(np.eye(4, 2, dtype=np.float32)), [CategoricalBound()], jr.key(0))
