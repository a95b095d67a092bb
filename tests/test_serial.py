"""Objects as JSON and back."""

import dataclasses
import json
import math
import sys
from functools import partial
from types import ModuleType

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

import sgm
from sgm.data import AbstractDataset
from sgm.evaluation import ChainBound, LogLikelihood
from sgm.experiment import Experiment, config_names, load_config
from sgm.nn import MLP, UNet
from sgm.options import ExperimentError
from sgm.serial import from_json, to_json
from sgm.training import Bound, ChainSteps, Loss, NormalLogSNR, UniformWeighting

pytestmark = pytest.mark.quick
CHAIN = sgm.DiscreteChain(np.asarray([0.1, 0.3, 1.0]))
EXPERIMENTS = {
    "plain": Experiment(sgm.data.Digits(), partial(MLP)),
    "chain": Experiment(
        sgm.data.StandardSwissRoll(),
        partial(MLP, dropout=0.1),
        sde=CHAIN,
        prediction=sgm.model.WithVariance(sgm.model.MeanCoefficient(CHAIN)),
        loss=Loss(UniformWeighting(), ChainSteps(), Bound(sgm.model.Learned(3))),
        metrics=(LogLikelihood(), ChainBound(sgm.model.FixedLarge())),
    ),
    "infinite": Experiment(
        sgm.data.GaussianField(amplitude=(0.1, 0.2)),
        partial(UNet, multipliers=(1, 4)),
        sde=sgm.SubVP(sgm.sde.Cosine(ratio_max=math.inf)),
        sampler=sgm.EDMHeun(churn_max=math.inf),
    ),
    "diffrax": Experiment(
        sgm.data.Moons(),
        partial(MLP),
        sampler=sgm.ProbabilityFlow(diffrax.Kvaerno3(), diffrax.PIDController(rtol=1e-3, atol=1e-6, dtmin=0.1)),
    ),
}


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_an_experiment_comes_back_as_it_was(experiment):
    written = to_json(experiment)
    again = from_json(json.loads(json.dumps(written, allow_nan=False)), Experiment)
    assert to_json(again) == written
    for field in dataclasses.fields(Experiment):
        one, other = getattr(experiment, field.name), getattr(again, field.name)
        assert field.name == "network" or one == other, field.name
    assert again.network.func is experiment.network.func
    assert again.network.keywords.items() >= experiment.network.keywords.items()


@pytest.mark.parametrize("name", config_names())
def test_a_shipped_configuration_comes_back_as_it_was(name):
    written = to_json(load_config(name))
    assert to_json(from_json(json.loads(json.dumps(written, allow_nan=False)), Experiment)) == written


def test_numbers_of_numpy_and_jax_are_written_as_numbers():
    written = to_json(sgm.VE(np.float64(0.1), jnp.asarray(2.5), t0=np.float32(0.25)))
    assert written == to_json(sgm.VE(0.1, 2.5, t0=0.25))


def test_every_option_is_written():
    assert to_json(sgm.VP()) == {
        "type": "VP",
        "schedule": {"type": "Linear", "beta_min": 0.1, "beta_max": 20.0},
        "t0": 1e-5,
        "t1": 1.0,
    }
    assert to_json(sgm.EDMHeun())["churn_max"] == "inf"


def edited(path, value):
    """The plain experiment with another value at a place."""
    written = to_json(EXPERIMENTS["plain"])
    *outer, last = path.split(".")
    part = written
    for name in outer:
        part = part[name]
    part[last] = value
    return written


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            edited("sde", {"type": "Popen", "args": "ls"}),
            "sde: there is no Popen; there are AbsorbingChain, BinomialChain, DiscreteChain, Rectified, SubVP,",
        ),
        (edited("sde", {"type": "Karras"}), "sde: there is no Karras; there are"),
        (edited("sde", {"type": "AbstractVP"}), "sde: there is no AbstractVP; there are"),
        (
            edited("network.type", "Linear"),
            "network: there is no Linear; there are ConvDense, DiT, MLP, StepwisePerceptron, Transformer",
        ),
        (edited("sde", {"t0": 1.0}), "sde: it does not say its type"),
        (edited("sde.type", 3), "sde: it does not say its type"),
        (
            edited("sde", "VP"),
            "sde = 'VP'; pass one of AbsorbingChain, BinomialChain, DiscreteChain, Rectified, SubVP, UniformChain, VE",
        ),
        (edited("sde.beta", 3), "sde: VP has no option 'beta'; it has schedule, t0, t1"),
        (edited("network.shape", [2]), "network: MLP has no option 'shape'"),
        (
            edited("sampler", {"type": "ProbabilityFlow", "stepping": {"type": "PIDController"}}),
            "sampler.stepping: PIDController lacks 'rtol'; pass a number",
        ),
        (edited("training.steps", 1.5), "training.steps = 1.5; pass an integer"),
        (edited("training.steps", True), "training.steps = True; pass an integer"),
        (edited("training.steps", "inf"), "training.steps = 'inf'; pass an integer"),
        (edited("sde.t0", "small"), "sde.t0 = 'small'; pass a number"),
        (edited("evaluation.split", "valid"), "evaluation.split = 'valid'; pass one of train, test"),
        (edited("evaluation.n", 0.5), "evaluation.n = 0.5; pass an integer or None"),
        (
            edited("metrics", {"type": "LogLikelihood"}),
            "metrics = .*; pass a list, of one of C2ST, Calibration, CategoricalBound, ChainBound, Cont",
        ),
        (
            edited("metrics", [{"type": "Exact"}]),
            r"metrics\[0\]: there is no Exact; there are C2ST, Calibration, CategoricalBound, ChainBound, Cont",
        ),
        ({"type": "Training"}, "there is no Training"),
        ([], "pass one of .*Experiment"),
    ],
)
def test_what_cannot_stand_at_a_place_is_named(written, message):
    with pytest.raises(ExperimentError, match=message) as error:
        from_json(written, Experiment)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: NormalLogSNR(jnp.ones(2)), "mean is a ArrayImpl, which cannot be written as text"),
        (
            lambda: sgm.ProbabilityFlow(stepping=diffrax.PIDController(1e-3, 1e-3, norm=jnp.max)),
            "stepping.norm is a .*, which cannot be written as text",
        ),
    ],
)
def test_what_cannot_be_written_is_named(made, message):
    with pytest.raises(ExperimentError, match=message):
        to_json(made())


def of_module(name, source):
    module = sys.modules[name] = ModuleType(name)
    exec(source, vars(module))
    return module


SOURCE = """
import dataclasses
from sgm.data import SwissRoll

@dataclasses.dataclass(frozen=True)
class Ellipses(SwissRoll):
    \"\"\"Ellipses.\"\"\"
    width: float = 2.0
"""


def test_a_class_of_the_users_own_is_named_with_its_module():
    module = of_module("my_ellipses", SOURCE)
    written = to_json(dataclasses.replace(EXPERIMENTS["plain"], data=module.Ellipses(3.0)))
    assert written["data"] == {"type": "Ellipses", "module": "my_ellipses", "width": 3.0}
    assert from_json(written, Experiment).data == module.Ellipses(3.0)
    of_module("my_other_ellipses", SOURCE)
    with pytest.raises(
        ExperimentError, match=r"data: Ellipses may be my_ellipses.Ellipses and my_other_ellipses.Ellip"
    ):
        from_json(written, Experiment)


def test_a_class_whose_module_is_not_imported_is_named_with_it():
    written = edited("data", {"type": "Pyramids", "module": "my_pyramids"})
    with pytest.raises(
        ExperimentError, match="data: Pyramids is a class of the module 'my_pyramids'; import my_pyramids f"
    ):
        from_json(written, Experiment)
    assert "my_pyramids" not in sys.modules


def test_a_cell_of_a_notebook_may_run_twice():
    cell = SOURCE.replace("Ellipses", "Circles")
    module = of_module("my_notebook", cell)
    first = module.Circles
    exec(cell, vars(module))
    assert type(from_json({"type": "Circles", "module": "my_notebook"}, AbstractDataset)) is module.Circles
    assert module.Circles is not first


def test_a_class_that_forgets_an_argument_is_told():
    class Forgetful(sgm.data.SwissRoll):
        def __init__(self, width: float = 1.0):
            pass

    with pytest.raises(
        ExperimentError, match=r"Forgetful does not keep its argument 'width'; set self.width in its const"
    ):
        to_json(Forgetful())
