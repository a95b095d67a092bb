"""The examples of docstrings run, and print what they say.

An example may use every public name as it is, and what `given` makes: a process, a model, data. Of names that two
folders export it sees that of its own.
"""

import contextlib
import doctest
import inspect
import io
import pathlib
from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pandas
import pytest
from classes import forget_module
from pictures import numbered, write_parquet
from public import exports, find, names_in, public_packages

import sgm
from sgm.data import Arrays
from sgm.interop import diffusers
from sgm.model import Gaussian
from sgm.sde import DiscreteChain, LinearBetas

PACKAGES = public_packages()
MODULE = "example_of_a_docstring"
LIBRARIES = {
    "np": np, "jax": jax, "jnp": jnp, "jr": jr, "eqx": eqx, "optax": optax, "diffrax": diffrax, "partial": partial,
    "sgm": sgm,
}  # fmt: skip


def given():
    """What examples take for granted."""
    key, rows = jr.key(0), np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    return {
        "key": key,
        "sde": sgm.VP(),
        "model": Gaussian(jnp.zeros(2), jnp.eye(2)),
        "data": Arrays(rows[:, :2]),
        "x": jnp.asarray(rows[:8, :2]),
        "chain": DiscreteChain(LinearBetas(20)),
    }


def pairs():
    """Pairs of a vector and its condition, half of them held out."""
    rows = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    return {"data": Arrays(rows[:, :2], params=rows[:, 2:], held_out=0.5)}


def maps_file():
    """Maps in a file."""
    rng = np.random.default_rng(0)
    np.savez("maps.npz", x=rng.normal(size=(100, 32, 32, 1)), theta=rng.normal(size=(100, 2)))
    return {}


def frame():
    """A table."""
    rows = np.random.default_rng(0).normal(size=(40, 6))
    return {"frame": pandas.DataFrame(rows, columns=["period", *"abcde"])}


def image_files():
    """Images of three classes in a file."""
    write_parquet(pathlib.Path("photographs/train.parquet"), numbered(6), [0, 1, 2, 0, 1, 2])
    return {}


def pipeline():
    """A network and a scheduler of diffusers in a folder."""
    network = diffusers.DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8, key=jr.key(0))
    diffusers.save_network("ddpm", network)
    pathlib.Path("ddpm/scheduler_config.json").write_text('{"_class_name": "DDIMScheduler"}')
    return {}


def maps():
    """A run in a folder, and a model like its own."""
    rows = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    data = Arrays(rows, held_out=0.5)
    model = sgm.ScoreModel(sgm.nn.MLP((2,), width=32, depth=2, key=jr.key(0)), data=data)
    options = {"batch_size": 8, "checkpoint_every": 2, "run": "runs/maps", "progress": False}
    sgm.train(sgm.VP(), model, data, jr.key(1), steps=4, **options)
    return {"data": data, "model": model}


# What the example of a part has besides, or instead: made when it runs.
OWN = {
    "AutoGuidance": lambda: {"early": Gaussian(jnp.zeros(2), 2 * jnp.eye(2))},
    "Observations": lambda: {"prior": Gaussian(jnp.zeros(2), 4 * jnp.eye(2))},
    "Unobserved": lambda: {
        "model": sgm.ScoreModel(
            sgm.nn.Transformer((5,), 16, 1, 2, conditioning=sgm.nn.Conditioning(observed=5), key=jr.key(0)), shape=(5,)
        ),
        "x": jnp.ones((8, 5)),
    },
    "best_step": maps,
    "load_run": maps,
    "C2ST": pairs,
    "Calibration": pairs,
    "ExpectedCoverage": pairs,
    "Files": maps_file,
    "ImageStream": image_files,
    "save": pipeline,
    "Table": frame,
}
# Examples that need other processes or an account: they are compiled, and their names of the library looked up.
NOT_RUN = {
    "initialise": "the other processes of a run",
    "push": "an account on the hub",
}
# Examples of more than a second or two, most of which goes by in compiling.
SLOW = {
    "Acceptance",
    "Ancestral",
    "AutoGuidance",
    "best_step",
    "C2ST",
    "Calibration",
    "categorical_elbo",
    "CategoricalBound",
    "ClassifierFree",
    "Conditioned",
    "Custom",
    "DAPS",
    "DDIM",
    "decode",
    "Denoising",
    "discrete_log_prob",
    "DiscreteLogProb",
    "DiT",
    "DiTTransformer2DModel",
    "DPS",
    "Draws",
    "encode",
    "evaluate",
    "Exactly",
    "ExpectedCoverage",
    "Experiment",
    "Guided",
    "Inpainting",
    "Karras",
    "Learned",
    "Linear",
    "load_run",
    "Loaded",
    "local_c2st",
    "LocalC2ST",
    "log_prob",
    "log_prob_within",
    "LogLikelihood",
    "LogLikelihoodLoss",
    "LogProb",
    "Loss",
    "MatchedDenoising",
    "Maximum",
    "maximum_a_posteriori",
    "mesh",
    "MMPS",
    "Muon",
    "Observations",
    "PerExample",
    "PiGDM",
    "Poisson",
    "PosteriorAncestral",
    "PosteriorPredictive",
    "PowerSpectrum",
    "ProbabilityFlow",
    "Probing",
    "reconstruction",
    "Replicated",
    "Report",
    "sample",
    "sample_and_log_prob",
    "sample_posterior",
    "sample_within",
    "SDEDPMSolverPP",
    "SingleDPMSolverPP",
    "SplitGibbs",
    "ToldTransitions",
    "train",
    "Transformer",
    "TwistedSMC",
    "UNet2DModel",
    "UNetModel",
    "Unobserved",
    "WithVariance",
}


def parts():
    """Each public part, with the package it is first exported by."""
    found = {}
    for package in PACKAGES[1:] + PACKAGES[:1]:
        for part in exports(package).values():
            found.setdefault(part, package)
    return sorted(found.items(), key=lambda item: (item[0].__module__, item[0].__qualname__))


EXAMPLES = [
    pytest.param(part, package, id=part.__qualname__, marks=[pytest.mark.slow] if part.__qualname__ in SLOW else [])
    for part, package in parts()
    if ">>> " in (inspect.getdoc(part) or "")
]


@pytest.mark.quick
def test_the_tables_name_public_parts():
    assert {*OWN, *NOT_RUN, *SLOW} <= {part.__qualname__ for part, _ in parts()}


def namespace(part, package):
    public = {name: found for other in PACKAGES for name, found in exports(other).items()}
    return LIBRARIES | public | exports(package) | {part.__name__: part} | given() | OWN.get(part.__qualname__, dict)()


@pytest.mark.parametrize(("part", "package"), EXAMPLES)
@pytest.mark.usefixtures("standard_promotion")
def test_an_example_runs_and_prints_what_it_says(part, package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = doctest.DocTestParser().get_examples(inspect.getdoc(part))
    try:
        run(lines, namespace(part, package) | {"__name__": MODULE}, part.__qualname__)
    finally:
        forget_module(MODULE)


def run(lines, names, part):
    for line in lines:
        assert all(find(name) is not None for name in names_in(line.source))
        code = compile(line.source, part, "single")
        if part in NOT_RUN:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        same = doctest.OutputChecker().check_output(line.want, printed.getvalue(), doctest.ELLIPSIS)
        assert same, f"{line.source}prints {printed.getvalue()!r}, not {line.want!r}"
