"""sgm: differentiable diffusion models in JAX."""

from importlib.metadata import version

from sgm import data, evaluation, likelihood, model, nn, plot, posterior, sde, solve, training
from sgm.encode import decode, encode
from sgm.evaluation import evaluate
from sgm.experiment import Experiment
from sgm.interop.push import push
from sgm.interop.saved import save
from sgm.likelihood import (
    Exact,
    Hutchinson,
    LogProb,
    Probing,
    bits_per_dim,
    log_prob,
    prior_mismatch,
    sample_and_log_prob,
)
from sgm.likelihood.categorical_elbo import categorical_elbo
from sgm.likelihood.continuous_elbo import continuous_elbo
from sgm.likelihood.elbo import bits_over_gaussian, elbo
from sgm.model import CategoricalModel, ScoreModel
from sgm.nn import Condition, Units
from sgm.posterior import sample_posterior
from sgm.runs import load
from sgm.sample import sample
from sgm.sde import VE, VP, AbsorbingChain, BinomialChain, DiscreteChain, Rectified, SubVP, UniformChain
from sgm.solve import (
    DDIM,
    Ancestral,
    CategoricalAncestral,
    DPMSolverPP,
    EDMHeun,
    EulerMaruyama,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseSDE,
    SDEDPMSolverPP,
    SingleDPMSolverPP,
)
from sgm.training import CategoricalLoss, Loss, score_matching_loss, train

__version__ = version("sgm")

__all__ = [
    "DDIM",
    "VE",
    "VP",
    "AbsorbingChain",
    "Ancestral",
    "BinomialChain",
    "CategoricalAncestral",
    "CategoricalLoss",
    "CategoricalModel",
    "Condition",
    "DPMSolverPP",
    "DiscreteChain",
    "EDMHeun",
    "EulerMaruyama",
    "Exact",
    "Experiment",
    "Hutchinson",
    "LogProb",
    "Loss",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Probing",
    "Rectified",
    "ReverseSDE",
    "SDEDPMSolverPP",
    "ScoreModel",
    "SingleDPMSolverPP",
    "SubVP",
    "UniformChain",
    "Units",
    "bits_over_gaussian",
    "bits_per_dim",
    "categorical_elbo",
    "continuous_elbo",
    "data",
    "decode",
    "elbo",
    "encode",
    "evaluate",
    "evaluation",
    "likelihood",
    "load",
    "log_prob",
    "model",
    "nn",
    "plot",
    "posterior",
    "prior_mismatch",
    "push",
    "sample",
    "sample_and_log_prob",
    "sample_posterior",
    "save",
    "score_matching_loss",
    "sde",
    "solve",
    "train",
    "training",
]
