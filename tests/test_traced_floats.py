"""Every public number may be traced: what is built in `jax.jit`, `jax.grad` and `jax.vmap` is what is built outside.

The public names are walked, so that a new number without a case fails.
"""

import dataclasses
import functools
import inspect
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
import sgm.training.objective
from sgm.likelihood import TruncatedNormalDequantisation, UniformDequantisation, discrete_log_prob
from sgm.model import AutoGuidance, ClassifierFree, Clipped, Estimate, Karras, Thresholded
from sgm.nn import MLP, Conditioning, ConvDense, DiT, Transformer, UNet
from sgm.posterior import (
    Denoising,
    Linear,
    MatchedDenoising,
    PosteriorAncestral,
    SplitGibbs,
    maximum_a_posteriori,
    sample_within,
)
from sgm.sde import LearnedLogSNR, PiecewiseConstant, Prior
from sgm.solve import KarrasGrid, ShiftedGrid
from sgm.training.objective import Hybrid
from sgm.training.times import NormalLogSNR
from sgm.training.weightings import KarrasWeighting

KEY, X, LEVELS = jr.key(0), jnp.asarray([[0.4, -0.8], [1.3, 0.2]]), jnp.asarray([[1, 6], [3, 4]])
VP, CHAIN = sgm.VP(), sgm.DiscreteChain(np.linspace(0.1, 0.4, 4))
MODEL = sgm.model.Gaussian(jnp.asarray([0.3, -0.5]), jnp.asarray([[0.5, 0.1], [0.1, 0.3]]))
NETWORK = MLP((2,), 8, 1, conditioning=Conditioning(params=1, null=True), key=KEY)
ESTIMATE = Estimate(*(0.1 * X[0] + at for at in (0.1, 0.2, 0.3, 0.4)))
PATH = sgm.solve.GridBrownianPath(jnp.asarray([0.0, 0.5, 1.0]), jax.ShapeDtypeStruct((2,), jnp.float32), KEY)
LEVEL, NOISE = jnp.asarray(0.2), X[1]


def process(sde):
    scales = [sde.alpha(0.6), sde.sigma(0.6), sde.rho(0.6), sde.level(0.6), sde.time(0.1)]
    return jnp.concatenate([jnp.stack(scales), sgm.solve.UniformGrid().levels(sde, 2), sde.prior.std[None]])


def step(method):
    """Where the method steps, and its first step."""
    levels = method.stepping.levels(VP)
    noise = jr.normal(KEY, (method.draws, 2))
    u, _ = method.advance(MODEL.predict, levels[0], levels[1], X[0], noise, method.memory(X[0]))
    return jnp.concatenate([levels, u])


def loss(sde=VP, model=MODEL, **options):
    return sgm.score_matching_loss(sde, model, X, KEY, **options)


def dropped(rate):
    cond = sgm.Condition(params=[[0.1], [0.2]])
    return loss(model=sgm.ScoreModel(NETWORK, shape=(2,)), cond=cond, condition_dropout=rate)


def of_loss(rate):
    cond = sgm.Condition(params=[[0.1], [0.2]])
    return sgm.Loss(condition_dropout=rate)(VP, sgm.ScoreModel(NETWORK, shape=(2,)), X, KEY, cond)


def reconstruct(**ends):
    last = sgm.likelihood.DiscretisedGaussian(8, **ends)
    return sgm.elbo(CHAIN, MODEL, X, KEY, reconstruction=last)


def of_levels(**ends):
    last = TruncatedNormalDequantisation().reconstruction(8, **ends)
    return sgm.elbo(CHAIN, MODEL, X, KEY, reconstruction=last)


def discrete(**ends):
    return discrete_log_prob(VP, MODEL, LEVELS, KEY, count=8, trace=sgm.Exact(), **ends)


def guided(build):
    """The estimate of a model that is made from a conditional one."""

    def network(level, u, cond, key=None):
        shift = cond.params[0] if cond.dropped is None else jnp.where(cond.dropped, 0.0, cond.params[0])
        return jnp.tanh(u + shift)

    model = build(sgm.ScoreModel(network, shape=(2,)))
    return model.predict(LEVEL, X[0], sgm.Condition(params=[0.4])).noise


WEAKER = sgm.ScoreModel(MLP((2,), 8, 1, key=jr.key(1)), shape=(2,), prediction=sgm.model.Denoised())


def posterior(method, n=4):
    evidence = Linear(jnp.cumsum, X[1], 0.5)
    return sgm.sample_posterior(VP, MODEL, evidence, KEY, n, method=method)


def discrete_on(low):
    return discrete(low=low, high=1.5 - low)


def each_draw(low, high):
    kinds = UniformDequantisation(), TruncatedNormalDequantisation()
    return jnp.stack([kind.draw(VP, LEVELS, 8, KEY, low, high)[0] for kind in kinds])


def piecewise(end):
    return process(sgm.VP(PiecewiseConstant(np.asarray([0.5, 1.5, 3.0]), end), 0.1, 0.9))


def interpolated(share):
    return Hybrid(share=share).error(CHAIN, LEVEL, X[0], NOISE, ESTIMATE)


class _LinearRate(sgm.sde.AbstractRate):
    def rate(self, t):
        return 0.1 + 19.9 * t


LINEAR_RATE = _LinearRate()
CASES = {
    "VE.sigma_min": (lambda v: process(sgm.VE(sigma_min=v)), 0.01),
    "VE.sigma_max": (lambda v: process(sgm.VE(sigma_max=v)), 50.0),
    "VE.t0": (lambda v: process(sgm.VE(t0=v)), 0.1),
    "VE.t1": (lambda v: process(sgm.VE(t1=v)), 0.9),
    "VP.t0": (lambda v: process(sgm.VP(t0=v)), 0.1),
    "VP.t1": (lambda v: process(sgm.VP(t1=v)), 0.9),
    "SubVP.t0": (lambda v: process(sgm.SubVP(t0=v)), 0.1),
    "SubVP.t1": (lambda v: process(sgm.SubVP(t1=v)), 0.9),
    "Rectified.t0": (lambda v: process(sgm.Rectified(t0=v)), 0.1),
    "Rectified.t1": (lambda v: process(sgm.Rectified(t1=v)), 0.9),
    "Linear.beta_min": (lambda v: process(sgm.SubVP(sgm.sde.Linear(beta_min=v))), 0.2),
    "Linear.beta_max": (lambda v: process(sgm.VP(sgm.sde.Linear(beta_max=v))), 15.0),
    "Cosine.ratio_min": (lambda v: process(sgm.VP(sgm.sde.Cosine(ratio_min=v))), 0.01),
    "Cosine.ratio_max": (lambda v: process(sgm.VP(sgm.sde.Cosine(ratio_max=v))), 50.0),
    "LearnedLogSNR.ratio_min": (lambda v: process(sgm.VP(LearnedLogSNR(ratio_min=v))), 0.01),
    "LearnedLogSNR.ratio_max": (lambda v: process(sgm.VP(LearnedLogSNR(ratio_max=v))), 50.0),
    "PiecewiseConstant.end": (piecewise, 1.1),
    "Prior.std": (lambda v: Prior(jnp.asarray(v)).log_prob(X[0]), 2.0),
    "DDIM.eta": (lambda v: sgm.sample(sgm.VE(sigma_max=100 * v), MODEL, KEY, method=sgm.DDIM(2, eta=v)), 0.5),
    "EDMHeun.churn": (lambda v: step(sgm.EDMHeun(2, churn=v)), 0.3),
    "EDMHeun.churn_min": (lambda v: step(sgm.EDMHeun(2, 3.0, churn_min=v)), 0.1),
    "EDMHeun.churn_max": (lambda v: step(sgm.EDMHeun(2, 3.0, churn_max=v)), 9.0),
    "EDMHeun.noise_std": (lambda v: step(sgm.EDMHeun(2, 3.0, noise_std=v)), 1.1),
    "PredictorCorrector.snr": (lambda v: step(sgm.PredictorCorrector(2, snr=v)), 0.2),
    "KarrasGrid.power": (lambda v: step(sgm.DDIM(3, grid=KarrasGrid(v))), 5.0),
    "ShiftedGrid.shift": (lambda v: step(sgm.DDIM(3, grid=ShiftedGrid(v))), 2.0),
    "Denoising.std": (lambda v: step(PosteriorAncestral(Denoising(X[0], v), 3)), 0.5),
    "MatchedDenoising.std": (lambda v: step(PosteriorAncestral(MatchedDenoising(X[0], v), 3)), 0.5),
    "GridBrownianPath.normal.t0": (lambda v: PATH.normal(v, 1.0), 0.5),
    "GridBrownianPath.normal.t1": (lambda v: PATH.normal(0.5, v), 1.0),
    "Clipped.low": (lambda v: Clipped(MODEL, low=v).denoise(VP, 0.3, X[0]), 0.5),
    "Clipped.high": (lambda v: Clipped(MODEL, high=v).denoise(VP, 0.3, X[0]), -0.5),
    "Karras.sigma_data": (lambda v: Karras(v).estimate(jnp.sin, LEVEL, X[0]).velocity, 0.7),
    "AbstractModel.score.t": (lambda v: MODEL.score(VP, v, X[0]), 0.3),
    "AbstractModel.noised.t": (lambda v: MODEL.noised(VP, v, X[0], KEY), 0.3),
    "Units.restore.z": (lambda v: sgm.Units(3.0, 2.0).restore(v), 0.3),
    "AbstractModel.denoise.t": (lambda v: MODEL.denoise(VP, v, X[0]), 0.3),
    "AbstractAnalyticModel.marginal.t": (lambda v: MODEL.marginal(VP, v).log_prob(X[0]), 0.3),
    "KarrasWeighting.sigma_data": (lambda v: loss(weighting=KarrasWeighting(sigma_data=v)), 0.7),
    "KarrasWeighting.mean": (lambda v: loss(weighting=KarrasWeighting(mean=v)), -1.0),
    "KarrasWeighting.std": (lambda v: loss(weighting=KarrasWeighting(std=v)), 1.5),
    "NormalLogSNR.mean": (lambda v: loss(times=NormalLogSNR(mean=v)), -1.0),
    "NormalLogSNR.std": (lambda v: loss(times=NormalLogSNR(std=v)), 1.5),
    "Hybrid.share": (interpolated, 0.1),
    "score_matching_loss.condition_dropout": (dropped, 0.5),
    "Loss.condition_dropout": (of_loss, 0.5),
    "DiscretisedGaussian.low": (lambda v: reconstruct(low=v), -2.0),
    "DiscretisedGaussian.high": (lambda v: reconstruct(high=v), 2.0),
    "discrete_log_prob.low": (discrete_on, -2.0),
    "discrete_log_prob.high": (discrete_on, -2.0),
    "dequantise.low": (lambda v: sgm.likelihood.dequantise(LEVELS, 8, KEY, low=v), -2.0),
    "dequantise.high": (lambda v: sgm.likelihood.dequantise(LEVELS, 8, KEY, high=v), 2.0),
    "AbstractDequantisation.draw.low": (lambda v: each_draw(v, 1.0), -2.0),
    "AbstractDequantisation.draw.high": (lambda v: each_draw(-1.0, v), 2.0),
    "AbstractDequantisation.training.low": (lambda v: UniformDequantisation().training(LEVELS, 8, KEY, v), -2.0),
    "AbstractDequantisation.training.high": (lambda v: UniformDequantisation().training(LEVELS, 8, KEY, -1.0, v), 2.0),
    "quantise.x": (lambda v: sgm.likelihood.quantise(v, 8).astype(float), 0.3),
    "quantise.low": (lambda v: sgm.likelihood.quantise(X, 8, low=v).astype(float), -2.0),
    "quantise.high": (lambda v: sgm.likelihood.quantise(X, 8, high=v).astype(float), 2.0),
    "bits_per_dim.log_prob": (lambda v: sgm.bits_per_dim(v, 2), -3.0),
    "bits_per_dim.low": (lambda v: sgm.bits_per_dim(-3.0, 2, low=v), -2.0),
    "bits_per_dim.high": (lambda v: sgm.bits_per_dim(-3.0, 2, high=v), 2.0),
    "bits_over_gaussian.log_prob": (lambda v: sgm.bits_over_gaussian(v, 2), -3.0),
    "ClassifierFree.weight": (lambda v: guided(lambda model: ClassifierFree(model, v)), 1.5),
    "ClassifierFree.rescale": (lambda v: guided(lambda model: ClassifierFree(model, 3.0, rescale=v)), 0.5),
    "AutoGuidance.weight": (lambda v: AutoGuidance(MODEL, WEAKER, v).predict(LEVEL, X[0]).noise, 1.5),
    "Thresholded.quantile": (lambda v: Thresholded(MODEL, v, -0.1, 0.1).predict(LEVEL, X[0]).noise, 0.6),
    "Thresholded.low": (lambda v: Thresholded(MODEL, 0.5, low=v, high=0.1).predict(LEVEL, X[0]).noise, -0.2),
    "Thresholded.high": (lambda v: Thresholded(MODEL, 0.5, low=-0.2, high=v).predict(LEVEL, X[0]).noise, 0.1),
    "Thresholded.largest": (
        lambda v: Thresholded(MODEL, 1.0, low=-0.2, high=0.2, largest=v).predict(LEVEL, X[0]).noise,
        2.0,
    ),
    "Estimate.extrapolated.weight": (lambda v: ESTIMATE.extrapolated(MODEL.predict(LEVEL, X[0]), v).noise, 1.5),
    "Blur.width": (lambda v: X * sgm.posterior.Blur(v)(X), 0.7),
    "Linear.std": (lambda v: Linear(jnp.cumsum, X[1], v).log_likelihood(X[0]), 0.5),
    "Nonlinear.std": (lambda v: sgm.posterior.Nonlinear(jnp.cumsum, X[1], v).log_likelihood(X[0]), 0.5),
    "DPS.scale": (lambda v: posterior(sgm.posterior.DPS(v, sampler=sgm.DDIM(3))), 0.3),
    "SplitGibbs.largest": (lambda v: posterior(SplitGibbs(3, v, reverse=sgm.DDIM(2))), 2.0),
    "SplitGibbs.smallest": (lambda v: posterior(SplitGibbs(3, 2.0, v, reverse=sgm.DDIM(2))), 0.3),
    "TwistedSMC.threshold": (lambda v: posterior(sgm.posterior.TwistedSMC(4, 1, 3, v)), 0.9),
    "AbstractSDE.drift.x": (lambda v: VP.drift(0.3, v), 0.3),
    "AbstractSDE.transition.s": (lambda v: jnp.stack(VP.transition(v, 0.7)), 0.3),
    "AbstractSDE.transition.t": (lambda v: jnp.stack(VP.transition(0.3, v)), 0.7),
    "AbstractSDE.marginal.t": (lambda v: VP.marginal(v, X[0])[0], 0.3),
    "AbstractSDE.drift.t": (lambda v: VP.drift(v, X), 0.3),
    "AbstractSDE.time.level": (VP.time, 0.3),
    "AbstractRate.rate.t": (lambda v: LINEAR_RATE.rate(v), 0.3),
    "AbstractSchedule.integral.t": (sgm.sde.Cosine().integral, 0.3),
    "AbstractSchedule.inverse.integral": (sgm.sde.Cosine().inverse, 0.3),
}
"""Of each number: what is made with it, and a value."""
for name in ("alpha", "sigma", "rho", "level", "log_snr", "theta", "diffusion", "level_rate"):
    CASES[f"AbstractSDE.{name}.t"] = (getattr(sgm.SubVP(), name), 0.3)

CASES["AbstractDequantisation.reconstruction.low"] = (lambda v: of_levels(low=v), -1.5)
CASES["AbstractDequantisation.reconstruction.high"] = (lambda v: of_levels(high=v), 1.5)
CASES["AbstractProcess.until.t"] = (lambda v: process(sgm.SubVP().until(v)), 0.8)
CASES["AbstractProcess.curves.t"] = (
    lambda v: jnp.stack([curve for panel in sgm.SubVP().curves(v) for curve in panel.values()]),
    0.3,
)

FLAT = {"EDMHeun.churn_min", "EDMHeun.churn_max", "quantise.x", "quantise.low", "quantise.high"}
FLAT |= {"GridBrownianPath.normal.t0", "GridBrownianPath.normal.t1", "score_matching_loss.condition_dropout"}
FLAT |= {"Loss.condition_dropout", "TwistedSMC.threshold"}
"""Those in which a result is constant between jumps: their gradient is zero."""

REFUSED = {
    "MLP.dropout": lambda v: MLP((2,), 8, 1, dropout=v, key=KEY),
    "ConvDense.dropout": lambda v: ConvDense((2,), dropout=v, key=KEY),
    "UNet.dropout": lambda v: UNet((8, 8, 1), dropout=v, key=KEY),
    "Transformer.dropout": lambda v: Transformer((2,), 8, 1, 1, dropout=v, key=KEY),
    "MLP.longest_wave": lambda v: MLP((2,), 8, 1, longest_wave=v, key=KEY),
    "UNet.longest_wave": lambda v: UNet((8, 8, 1), longest_wave=v, key=KEY),
    "Transformer.longest_wave": lambda v: Transformer((2,), 8, 1, 1, longest_wave=v, key=KEY),
    "sample_within.least_rate": lambda v: sample_within(VP, MODEL, KEY, 2, jnp.all, least_rate=v),
    "maximum_a_posteriori.tolerance": lambda v: maximum_a_posteriori(VP, MODEL, KEY, tolerance=v),
    "DiT.dropout": lambda v: DiT((8, 8, 1), dropout=v, key=KEY),
    "Adam.learning_rate": lambda v: sgm.training.Adam(learning_rate=v),
    "Adam.clip": lambda v: sgm.training.Adam(clip=v),
    "AdamW.learning_rate": lambda v: sgm.training.AdamW(learning_rate=v),
    "AdamW.clip": lambda v: sgm.training.AdamW(clip=v),
    "AdamW.weight_decay": lambda v: sgm.training.AdamW(weight_decay=v),
    "Muon.learning_rate": lambda v: sgm.training.Muon(learning_rate=v),
    "Muon.clip": lambda v: sgm.training.Muon(clip=v),
    "Muon.weight_decay": lambda v: sgm.training.Muon(weight_decay=v),
    "LogLikelihoodLoss.tolerance": lambda v: sgm.training.LogLikelihoodLoss(tolerance=v),
    "LinearBetas.first": lambda v: sgm.sde.LinearBetas(first=v),
    "LinearBetas.last": lambda v: sgm.sde.LinearBetas(last=v),
    "ScaledLinearBetas.first": lambda v: sgm.sde.ScaledLinearBetas(first=v),
    "ScaledLinearBetas.last": lambda v: sgm.sde.ScaledLinearBetas(last=v),
    "CosineBetas.offset": lambda v: sgm.sde.CosineBetas(offset=v),
    "CosineBetas.largest": lambda v: sgm.sde.CosineBetas(largest=v),
    "SigmoidBetas.first": lambda v: sgm.sde.SigmoidBetas(first=v),
    "SigmoidBetas.last": lambda v: sgm.sde.SigmoidBetas(last=v),
    "SigmoidBetas.reach": lambda v: sgm.sde.SigmoidBetas(reach=v),
    "SohlDicksteinBetas.floor": lambda v: sgm.sde.SohlDicksteinBetas(floor=v),
    "SohlDicksteinBetas.step1": lambda v: sgm.sde.SohlDicksteinBetas(step1=v),
    "BinomialChain.p": lambda v: sgm.BinomialChain(p=v),
    "InformationSteps.share": lambda v: sgm.sde.InformationSteps(share=v),
    "CategoricalLoss.cross_entropy": lambda v: sgm.CategoricalLoss(cross_entropy=v),
    "Training.average_decay": lambda v: sgm.training.Training(average_decay=v),
    "train.average_decay": lambda v: sgm.train(
        VP, sgm.ScoreModel(MLP((2,), 8, 1, key=KEY), shape=(2,)), sgm.data.Moons(), KEY, steps=1, average_decay=v
    ),
    "log_prob.accuracy": lambda v: sgm.log_prob(VP, MODEL, X, KEY, accuracy=v),
    "discrete_log_prob.accuracy": lambda v: discrete(accuracy=v),
    "LogProb.interval.confidence": lambda v: sgm.log_prob(VP, MODEL, X, KEY, full=True).interval(v),
}
"""Those whose values are needed: float64 tables of NumPy, dropout that is built in or not, choices of tolerances."""


def is_number(annotation):
    """Whether a plain float may be passed; anything that `jnp.asarray` takes is no number in particular."""
    kinds = typing.get_args(annotation) or (annotation,)
    return float in kinds and complex not in kinds


def public_numbers():
    """The names of all numbers of public functions, constructors and methods, as "Class.method.argument"."""
    modules = (sgm, sgm.sde, sgm.model, sgm.solve, sgm.likelihood, sgm.nn, sgm.training, sgm.posterior)
    found = set()
    for module in modules:
        for name, value in vars(module).items():
            is_error = inspect.isclass(value) and issubclass(value, Exception)
            if name.startswith("_") or not callable(value) or is_error:
                continue
            found |= {f"{name}.{argument}" for argument in _numbers(value)}
            if inspect.isclass(value):
                fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
                scalars = {field.name for field in fields if getattr(field.type, "dim_str", None) == ""}
                found |= {f"{name}.{argument}" for argument in scalars & set(inspect.signature(value).parameters)}
                for method in (method for method in vars(value) if not method.startswith("_")):
                    function = getattr(value, method)
                    numbers = _numbers(function) if inspect.isroutine(function) else ()
                    found |= {f"{name}.{method}.{argument}" for argument in numbers}
    return found


def _numbers(function):
    parameters = inspect.signature(function).parameters
    return [name for name, parameter in parameters.items() if is_number(parameter.annotation)]


def test_every_public_number_has_a_case():
    assert public_numbers() == set(CASES) | set(REFUSED)


@functools.cache
def results(make, value):
    """Of a plain number, and of a traced one."""

    def traced(v):
        return make(v), jax.grad(lambda v: jnp.sum(make(v)))(v), jax.vmap(make)(jnp.stack([v, v]))

    return make(value), jax.jit(traced)(value)


LONG = "DDIM", "DPS", "SplitGibbs", "TwistedSMC", "discrete_log_prob"
"""What takes many seconds to be compiled."""

KEPT = {name.rpartition(".")[0]: name for name in CASES if name.partition(".")[0] not in LONG}.values()
"""One number of each other class and function, which the others are much like."""


@pytest.mark.slow_except(*KEPT)
@pytest.mark.parametrize("name", CASES)
def test_a_traced_number_gives_what_a_plain_one_gives(name):
    outside, (jitted, gradient, mapped) = results(*CASES[name])
    np.testing.assert_allclose(jitted, outside, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mapped, jnp.stack([outside, outside]), rtol=1e-4, atol=1e-5)
    assert np.isfinite(gradient) and (gradient == 0) == (name in FLAT)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("types_unchecked")
def test_a_number_whose_value_is_needed_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=rf"{name.split('.')[-1]} is traced by jax.jit.*; pass a plain number"):
        eqx.filter_jit(REFUSED[name])(jnp.asarray(0.5))
