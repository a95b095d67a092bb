"""The rule that flags, JSON and the comparison of experiments rest on: a class keeps every constructor argument."""

import inspect
import math

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm import data, likelihood, nn, posterior, sde, solve, training
from sgm.interop import diffusers, timestep
from sgm.model import AbstractPrediction, AbstractVariance, Velocity

ABSTRACT = (
    sde.AbstractSDE,
    sde.AbstractCategoricalChain,
    sde.AbstractStepSampling,
    sde.AbstractSchedule,
    sde.AbstractBetas,
    nn.AbstractNetwork,
    AbstractPrediction,
    AbstractVariance,
    solve.AbstractMethod,
    solve.AbstractGrid,
    likelihood.AbstractTrace,
    likelihood.AbstractReconstruction,
    likelihood.AbstractDequantisation,
    posterior.AbstractEvidence,
    posterior.AbstractPosteriorMethod,
    training.AbstractWeighting,
    training.AbstractTimeSampling,
    training.AbstractObjective,
    training.AbstractMasking,
    data.AbstractDataset,
)

VALUES = {
    "shape": (8, 8, 3),
    "conditioning": nn.Conditioning(params=2),
    "key": jr.key(0),
    "precision": "bfloat16",
    "noise_levels": (-2.0, 0.5, 1.0),
    "multipliers": (1, 3),
    "attention": (4,),
    "width": 12,
    "heads": 3,
    "order": 3,
    "mask": jnp.asarray([True, False]),
    "known": jnp.ones(2),
    "observed": jnp.ones(2),
    "evidence": posterior.MatchedDenoising(jnp.ones(2), 0.5),
    "schedule": sde.Cosine(2e-3, 50.0),
    "chain": sde.DiscreteChain(sde.CosineBetas(9)),
    "betas": sde.SigmoidBetas(11),
    "table": (0.1, 0.2, 1.0),
    "increments": (0.1, 0.3, math.inf),
    "mean": Velocity(),
    "variance": sgm.model.Learned(7),
    "reconstruction": likelihood.DiscretisedGaussian(8),
    "bound": training.Bound(sgm.model.Learned(7)),
    "grid": solve.KarrasGrid(3.0),
    "ends": solve.LeadingGrid(2),
    "inner": solve.KarrasGrid(3.0),
    "distribution": "normal",
    "strides": (2, 2, 1),
    "workers": 2,
    "t0": 0.0125,
    "t1": 0.875,
    "stepping": solve.FixedSteps(7),
    "amplitude": (0.25, 2.0),
    "slope": (1.5, 2.5),
    "patch": 4,
    "std": 0.25,
    "convolutions": 3,
    "chunk": 5,
    "name": "somebody/flowers",
    "path": "folder",
    "classes": 7,
    "background": "black",
}
"""A value for each argument that is no plain number, or wants a certain one."""

OF_CLASS = {
    **{name: {"levels": 65536} for name in ("Images", "ImageStream")},
    "GaussianFieldMap": {"amplitude": 0.7, "slope": 1.5},
    "GaussianVolume": {"amplitude": 0.7, "slope": 1.5},
    "Simulations": {
        "simulator": lambda key, theta: theta + jr.normal(key, theta.shape),
        "prior": sgm.model.Uniform(jnp.zeros(2), jnp.ones(2)),
    },
    "FixedEntries": {"observed": (1, 3)},
    **{name: {"pad": False} for name in ("UNet", "DiT")},  # A torus has no end to pad.
    "Transformer": {"shape": (5,)},
    "StepwisePerceptron": {"conditioning": nn.Conditioning()},
    "AbsorbingChain": {"categories": 3, "betas": sde.HarmonicBetas(11)},
    "UniformChain": {"categories": 3},
    "FirstBetas": {"steps": 7},
    "Letters": {"letters": 20},
    "NormalLogSNR": {"mean": -0.5},
    "KarrasWeighting": {"mean": -0.5},
    "Arrays": {
        "x": np.random.default_rng(0).integers(0, 7, (9, 4, 4, 1), np.uint8),
        "params": np.random.default_rng(1).normal(size=(9, 2)),
        "label": np.arange(9) % 3,
        "image": np.zeros((9, 3, 3)),
        "held_out": np.arange(9) > 6,
        "grey_levels": 7,
    },
    "Files": {"x": ("a", "b"), "params": "c", "label": "d", "image": "e", "held_out": "f", "grey_levels": 7},
    "Table": {"source": "table.csv", "columns": ("a", "b"), "params": ("c",)},
    "Linear": {"operator": jnp.cumsum, "y": jnp.arange(3.0), "std": jnp.asarray(0.3)},
    "Nonlinear": {"function": jnp.exp, "y": jnp.arange(3.0), "std": jnp.asarray(0.3)},
    "Poisson": {"function": jnp.exp, "y": jnp.arange(3.0)},
    "Custom": {"function": jnp.sum},
    **{name: {"sampler": solve.DDIM(7)} for name in ("DPS", "PiGDM", "TMPD", "MMPS")},
    "DAPS": {"flow": solve.DDIM(7)},
    "SplitGibbs": {"reverse": solve.DDIM(7)},
    "ProbabilityFlow": {"solver": diffrax.Heun()},
    "ReverseSDE": {"solver": diffrax.SRA1()},
    "OfTimesteps": {
        "network": eqx.filter_eval_shape(lambda: diffusers.DiTTransformer2DModel(key=jr.key(0))),
        "timesteps": timestep.FlowTimesteps(7),
    },
}


def concrete(abstract):
    found = [] if abstract.__name__.startswith(("Abstract", "_")) else [abstract]
    return found + [cls for subclass in abstract.__subclasses__() for cls in concrete(subclass)]


CLASSES = [cls for abstract in ABSTRACT for cls in concrete(abstract) if cls.__module__.startswith("sgm.")]


def another(cls, name, default):
    """A value of an argument that is not its default."""
    if name in OF_CLASS.get(cls.__name__, {}):
        return OF_CLASS[cls.__name__][name]
    if name in VALUES:
        return VALUES[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return 0.75 * default + 0.125
    pytest.fail(f"{cls.__name__}.{name}: give it a value in VALUES")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_keeps_every_argument_under_its_name(cls):
    parameters = inspect.signature(cls).parameters
    arguments = {name: another(cls, name, parameter.default) for name, parameter in parameters.items()}
    made = cls(**arguments)
    for name, value in arguments.items():
        if name != "key":
            assert np.all(getattr(made, name) == value), name
