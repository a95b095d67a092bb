import re
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas
import pytest

import sgm
from sgm.checks import warn_of_scale
from sgm.evaluation import ContinuousBound
from sgm.likelihood import Flat, discrete_log_prob, reconstruction
from sgm.nn import MLP, ConvDense, DiT, UNet
from sgm.posterior import PosteriorAncestral

NORMAL = jr.normal(jr.key(0), (64, 4))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (12 * NORMAL, "the root mean square 1"),
        (1e6 * NORMAL.at[:, 1:].set(0), r"call: x has the root mean square 4.48e\+05 \(mean 9"),
        (jr.randint(jr.key(1), (8, 8, 8, 1), 0, 256).astype(float), r"give the model the units of the data"),
        (4 + 0.3 * NORMAL, r"\(mean 4.01, standard deviation 0.286\)"),
        (1e30 * NORMAL, r"e\+"),
    ],
)
def test_data_far_from_unit_scale_are_named(x, said):
    with pytest.warns(UserWarning, match=said):
        warn_of_scale("call", x)


@pytest.mark.parametrize(
    "x",
    [
        8 * NORMAL,
        4 + 0.6 * NORMAL,
        0.05 + 1e-3 * NORMAL,
        jnp.full((2, 2), 3.0),
        jnp.zeros(2),
        sgm.data.Checkerboard().draw(jr.key(0), 100),
        jnp.full((4, 4, 1), jnp.nan),
    ],
)
def test_data_of_about_unit_scale_pass(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scale("call", x)


def test_traced_data_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(lambda x: warn_of_scale("call", x))(1e6 * NORMAL)


CHAIN, GAUSSIAN, KEY = sgm.DiscreteChain(np.full(4, 0.1)), sgm.model.Gaussian(jnp.zeros(2), jnp.eye(2)), jr.key(0)
DATA = sgm.data.Moons()
VP, X, LEVELS = sgm.VP(), jnp.ones((3, 2)), jnp.zeros((3, 2), int)
DRAW = sgm.sample_and_log_prob
LOSS, TABLE = sgm.score_matching_loss, pandas.DataFrame({"a": [0.0, 1.0], "b": [2.0, 3.0]})
# Every message is a plain sentence: the call, what is wrong with its value, and the remedy.
WRONG = [
    (lambda: sgm.sample(VP, GAUSSIAN, KEY, method="ddim"), r"sample: method = 'ddim'; pass .* such as sgm.DDIM\("),
    (
        lambda: sgm.sample(VP, GAUSSIAN, KEY, method=sgm.DDIM),
        r"sample: method is the class DDIM; pass an instance such",
    ),
    (
        lambda: sgm.sample(GAUSSIAN, VP, KEY),
        "sample: the first .* model Gaussian .* process VP; pass the process first",
    ),
    (lambda: sgm.sample(sgm.VP, GAUSSIAN, KEY), r"sample: sde is the class VP; pass an instance such as sgm.VP\(\)"),
    (lambda: sgm.sample(VP, lambda x: x, KEY), r"sample: model is a function; pass .* such as sgm.ScoreModel\(network"),
    (lambda: sgm.sample(VP, GAUSSIAN, 0, 4), r"sample: key = 0; pass jax.random.key\(0\)"),
    (lambda: sgm.sample(VP, GAUSSIAN, jnp.zeros(3)), r"sample: key has dtype float32; pass jax.random.key\(0\)"),
    (lambda: sgm.evaluate(VP, GAUSSIAN, DATA, [], None), r"evaluate: key = None; pass jax.random.key\(0\)"),
    (lambda: sgm.sample(VP, GAUSSIAN, KEY, saveat=[0.5]), r"sample: saveat is a list; .* diffrax.SaveAt\(t0=True\)"),
    (lambda: sgm.sample(VP, GAUSSIAN, KEY, adjoint="direct"), r"sample: adjoint = 'direct'; .* diffrax.DirectAdjoint"),
    (lambda: sgm.sample(VP, GAUSSIAN, KEY, progress=True), "sample: progress = True; .* diffrax.TqdmProgressMeter"),
    (
        lambda: sgm.log_prob(VP, GAUSSIAN, X, KEY, trace="exact"),
        r"log_prob: trace = 'exact'; pass .* such as sgm.Exact",
    ),
    (
        lambda: sgm.log_prob(VP, GAUSSIAN, X, KEY, trace=sgm.Exact),
        "log_prob: trace is the class Exact; pass an instance",
    ),
    (lambda: sgm.log_prob(VP, GAUSSIAN, X, KEY, solver="rk4"), r"log_prob: solver = 'rk4'; .* diffrax.Dopri5\(\)"),
    (lambda: sgm.log_prob(VP, GAUSSIAN, X, KEY, controller=1e-5), r"log_prob: controller = 1e-05; .* diffrax.PIDCont"),
    (lambda: sgm.log_prob(VP, GAUSSIAN, X, KEY, prior=1), r"log_prob: prior = 1; pass an instance such as sde.prior"),
    (lambda: sgm.log_prob(VP, GAUSSIAN, X, KEY, adjoint=1), r"log_prob: adjoint = 1; .* diffrax.DirectAdjoint\(\)"),
    (lambda: sgm.log_prob(GAUSSIAN, VP, X, KEY), "log_prob: the first .* model Gaussian .*; pass the process first"),
    (lambda: sgm.log_prob(VP, GAUSSIAN, [[0.0, 1.0]], KEY), r"log_prob: x is a list; .* such as jnp.asarray\(x\)"),
    (
        lambda: sgm.log_prob(VP, GAUSSIAN, TABLE, KEY),
        r"log_prob: x is a DataFrame; pass an array, such as x.to_numpy\(\)",
    ),
    (lambda: DRAW(GAUSSIAN, VP, KEY), "sample_and_log_prob: the first .*; pass the process first, then the model"),
    (lambda: DRAW(VP, GAUSSIAN, KEY, trace="exact"), "sample_and_log_prob: trace = 'exact'; pass an instance"),
    (lambda: DRAW(VP, GAUSSIAN, KEY, trace=sgm.Exact), "sample_and_log_prob: trace is the class Exact"),
    (lambda: DRAW(VP, GAUSSIAN, KEY, solver="rk4"), "sample_and_log_prob: solver = 'rk4'"),
    (lambda: DRAW(VP, GAUSSIAN, KEY, controller=1e-3), "sample_and_log_prob: controller = 0.001"),
    (lambda: DRAW(VP, lambda x: x, KEY), "sample_and_log_prob: model is a function"),
    (lambda: sgm.encode(GAUSSIAN, VP, X), "encode: the first .*; pass the process first"),
    (lambda: sgm.encode(VP, GAUSSIAN, X, solver="rk4"), "encode: solver = 'rk4'"),
    (lambda: sgm.encode(VP, GAUSSIAN, TABLE), "encode: x is a DataFrame; pass an array"),
    (lambda: sgm.continuous_elbo(GAUSSIAN, VP, X, KEY), "continuous_elbo: the first .*; pass the process first"),
    (lambda: discrete_log_prob(VP, GAUSSIAN, [[0, 1]], KEY), r"discrete_log_prob: levels is a list; pass an array"),
    (lambda: discrete_log_prob(GAUSSIAN, VP, LEVELS, KEY), "discrete_log_prob: the first .*; pass the process first"),
    (
        lambda: discrete_log_prob(VP, GAUSSIAN, LEVELS, KEY, dequantisation="uniform"),
        "dequantisation = 'uniform'; pass",
    ),
    (lambda: discrete_log_prob(VP, GAUSSIAN, LEVELS, KEY, trace="exact"), "trace = 'exact'; pass an instance such as"),
    (lambda: sgm.elbo(GAUSSIAN, CHAIN, X, KEY), "elbo: the first .* model Gaussian .* DiscreteChain; pass the process"),
    (lambda: sgm.elbo(CHAIN, GAUSSIAN, [0.0, 1.0], KEY), "elbo: x is a list; pass an array"),
    (lambda: sgm.elbo(CHAIN, GAUSSIAN, X, KEY, variance="large"), "elbo: variance = 'large'; .* sgm.model.FixedLarge"),
    (lambda: sgm.elbo(CHAIN, GAUSSIAN, X, KEY, reconstruction=Flat), "elbo: reconstruction is the class Flat; pass an"),
    (lambda: reconstruction(GAUSSIAN, VP, X, X), "reconstruction: the first .*; pass the process first"),
    (lambda: reconstruction(VP, GAUSSIAN, [[0.0, 0.0]], X), "reconstruction: x0 is a list; pass an array"),
    (lambda: sgm.prior_mismatch(GAUSSIAN, X), r"prior_mismatch: sde is a Gaussian; pass an instance such as sgm.VP"),
    (lambda: sgm.prior_mismatch(VP, [[0.0, 0.0]]), "prior_mismatch: x0 is a list; pass an array"),
    (lambda: LOSS(GAUSSIAN, VP, X, KEY), "Loss: the first .*; pass the process first, then the model"),
    (lambda: LOSS(VP, GAUSSIAN, TABLE, KEY), "Loss: x is a DataFrame; pass an array"),
    (
        lambda: LOSS(VP, GAUSSIAN, X, KEY, weighting="Karras"),
        "weighting = 'Karras'; pass .* sgm.training.KarrasWeighting",
    ),
    (
        lambda: LOSS(VP, GAUSSIAN, X, KEY, times=sgm.training.UniformTime),
        "times is the class UniformTime; pass an instance",
    ),
    (lambda: LOSS(VP, GAUSSIAN, X, KEY, objective="huber"), r"objective = 'huber'; pass .* sgm.training.Squared\(\)"),
    (lambda: GAUSSIAN.score(0.5, VP, X[0]), r"score: sde = 0.5; pass an instance such as sgm.VP\(\)"),
    (lambda: sgm.sample(VP, GAUSSIAN, KEY, 2.5), "sample: n = 2.5; pass a whole number, n >= 1"),
    (lambda: sgm.sample(VP, GAUSSIAN, KEY, start=X), r"sample: start is a ArrayImpl; pass the tuple \(t, x\)"),
    (
        lambda: sgm.evaluate(VP, GAUSSIAN, DATA, ContinuousBound(), KEY),
        r"metrics is a ContinuousBound; pass a list, as \[sgm",
    ),
    (lambda: sgm.train(VP, GAUSSIAN, DATA, KEY, steps=2.5), "train: steps = 2.5; pass a whole number"),
    (
        lambda: sgm.train(VP, GAUSSIAN, DATA, KEY, steps=1, callbacks=print),
        r"callbacks is a .*; pass a list, as \[callback\]",
    ),
    (
        lambda: sgm.train(VP, GAUSSIAN, DATA, KEY, steps=1, callbacks=[3]),
        r"callbacks = 3; pass functions callback\(step",
    ),
    (lambda: sgm.DDIM(grid="karras"), r"DDIM: grid = 'karras'; pass an instance such as sgm.solve.LogSNRGrid\(\)"),
    (lambda: sgm.EulerMaruyama(grid=sgm.solve.KarrasGrid), "EulerMaruyama: grid is the class KarrasGrid; pass an ins"),
    (lambda: sgm.solve.FixedSteps(10, "theta"), "FixedSteps: grid = 'theta'; pass an instance such as"),
    (lambda: sgm.Ancestral(variance="large"), r"Ancestral: variance = 'large'; pass .* sgm.model.FixedLarge\(\)"),
    (lambda: sgm.ProbabilityFlow(solver="heun"), r"ProbabilityFlow: solver = 'heun'; pass .* diffrax.Heun\(\)"),
    (
        lambda: sgm.ProbabilityFlow(stepping=100),
        r"ProbabilityFlow: stepping = 100; pass .* sgm.solve.FixedSteps\(100\)",
    ),
    (lambda: PosteriorAncestral(X), r"PosteriorAncestral: evidence is a ArrayImpl; pass .* MatchedDenoising\(observed"),
    (lambda: sgm.ScoreModel(jnp.sin, "noise", shape=(2,)), r"ScoreModel: prediction = 'noise'; pass .* sgm.model.Velo"),
    (lambda: sgm.ScoreModel(jnp.sin, shape=2), r"ScoreModel: shape = 2; pass an instance such as \(28, 28, 1\)"),
    (lambda: sgm.model.Clipped(jnp.sin), "Clipped: model is a .*; pass an instance such as sgm.ScoreModel"),
    (lambda: sgm.model.WithVariance("noise"), r"WithVariance: mean = 'noise'; pass .* such as sgm.model.Noise\(\)"),
]


COUNTS = {
    "steps": (sgm.EulerMaruyama, sgm.DDIM, sgm.DPMSolverPP, sgm.SingleDPMSolverPP, sgm.Ancestral, sgm.EDMHeun),
    "count": (sgm.Hutchinson,),
    "directions": (sgm.evaluation.SlicedWasserstein,),
    "draws": (ContinuousBound,),
    "film": (sgm.experiment.Drawing,),
    "batch_size": (sgm.experiment.Evaluation, sgm.training.Training),
    "warmup": (sgm.training.Adam,),
    "width": (sgm.sde.LearnedLogSNR,),
}


@pytest.mark.parametrize("cls", [cls for several in COUNTS.values() for cls in several])
@pytest.mark.usefixtures("types_unchecked")
def test_half_a_count_is_named(cls):
    (name,) = (name for name, several in COUNTS.items() if cls in several)
    with pytest.raises(TypeError, match=rf"{cls.__name__}: {name} = 2.5; pass a whole number, {name} >= "):
        cls(**{name: 2.5})


@pytest.mark.usefixtures("types_unchecked")
def test_more_keys_than_a_call_takes_are_named():
    with pytest.raises(ValueError, match=r"sample: there are keys of shape \(2, 2\); .*, or a key for each example"):
        sgm.sample(VP, GAUSSIAN, jr.split(KEY, (2, 2)))
    with pytest.raises(ValueError, match=r"log_prob: there are keys of shape \(3,\); pass jax.random.key\(0\)\."):
        sgm.log_prob(VP, GAUSSIAN, X, jr.split(KEY, 3))


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
@pytest.mark.usefixtures("types_unchecked")
def test_arguments_of_another_type_are_named(call, message):
    with pytest.raises(TypeError, match=message) as error:
        call()
    assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")


@pytest.mark.parametrize("shape", [(), (0,), (2, -1), (2.0,), 2, "2"])
@pytest.mark.parametrize("network", [MLP, ConvDense, UNet, DiT])
@pytest.mark.usefixtures("types_unchecked")
def test_impossible_shapes_are_named(network, shape):
    with pytest.raises(ValueError, match=rf"{network.__name__}: shape = {re.escape(repr(shape))}; pass .*\(.*\)"):
        network(shape, key=jr.key(0))


def test_arrays_of_numpy_pass():
    x = np.asarray(X, np.float64)
    np.testing.assert_array_equal(LOSS(VP, GAUSSIAN, x, KEY), LOSS(VP, GAUSSIAN, X, KEY))


def test_the_warning_is_of_the_line_that_called():
    """In a program of its own, where no type checker stands between the calls."""
    program = "from sgm.checks import warn_of_scale\ndef entry(x):\n    warn_of_scale('entry', x)\nentry([1e6, -1e6])\n"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "<string>:4: UserWarning: entry: x has the root mean square 1e+06" in result.stderr


def test_data_far_from_the_prior_are_told():
    x = 127 + 60 * np.random.default_rng(0).standard_normal((16, 4), np.float32)
    model = sgm.model.Gaussian(jnp.zeros(4), jnp.diag(jnp.arange(1.0, 5.0)))
    with pytest.warns(UserWarning, match=r"log_prob: at t1 of VP the data are still about .* nats from the prior"):
        sgm.log_prob(sgm.VP(), model, x, trace=sgm.Exact())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sgm.log_prob(sgm.VP(), model, x / 127 - 1, trace=sgm.Exact())
        sgm.log_prob(sgm.VP(sgm.sde.Cosine(ratio_max=1e6)), model, x, trace=sgm.Exact())


class Short(sgm.model.AbstractModel):
    """Its estimate lacks an entry."""

    shape: tuple[int, ...] = (2,)

    def predict(self, level, u, cond=None, key=None):
        return sgm.model.from_denoised(level, u[:1], u[:1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: sgm.sample(VP, Short(), KEY, 3),
        lambda: sgm.log_prob(VP, Short(), X, trace=sgm.Exact()),
        lambda: LOSS(VP, Short(), X, KEY),
        lambda: sgm.continuous_elbo(VP, Short(), X, KEY),
        lambda: sgm.encode(VP, Short(), X),
        lambda: Short().denoise(VP, 0.3, X[0]),
    ],
)
@pytest.mark.usefixtures("types_unchecked")
def test_an_estimate_of_another_shape_is_refused_everywhere(call):
    with pytest.raises(ValueError, match=r"Short: predict gives .* \(1,\) for u of shape \(2,\); give them that shape"):
        call()


def test_data_far_from_the_units_of_the_model_are_told():
    for call in (lambda: LOSS(VP, GAUSSIAN, 1e6 * X, KEY), lambda: sgm.log_prob(VP, GAUSSIAN, 1e3 * X[0], KEY)):
        with pytest.warns(UserWarning, match="give the model the units of the data"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": MLP((3,), key=KEY)}, r"the network gets examples of shape \(2,\), but is a MLP for \(3,\)"),
        ({"units": sgm.Units(np.zeros((5, 2)), np.ones((5, 2)))}, r"the units have shape \(5, 2\), but the examples"),
        ({"units": sgm.Units(np.zeros(3), np.ones(3))}, r"units have shape \(3,\).*for each entry of .* shape \(2,\)"),
    ],
)
def test_what_does_not_fit_the_shape_of_the_examples_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sgm.ScoreModel(**({"network": MLP((2,), key=KEY), "shape": (2,)} | arguments))
