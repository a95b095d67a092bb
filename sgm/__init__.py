"""sgm: differentiable diffusion models in JAX."""

from sgm import data, likelihood, model, nn, plot, posterior, sde, solve, training
from sgm.build import load
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
from sgm.likelihood.elbo import bits_over_gaussian, elbo
from sgm.model import Condition, ScoreModel
from sgm.sample import sample
from sgm.sde import VE, VP, DiscreteChain, Rectified, SubVP
from sgm.solve import (
    DDIM,
    Ancestral,
    DPMSolverPP,
    EDMHeun,
    EulerMaruyama,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseSDE,
    SDEDPMSolverPP,
    SingleDPMSolverPP,
)
from sgm.training.loss import score_matching_loss

__all__ = [
    "DDIM",
    "VE",
    "VP",
    "Ancestral",
    "Condition",
    "DPMSolverPP",
    "DiscreteChain",
    "EDMHeun",
    "EulerMaruyama",
    "Exact",
    "Hutchinson",
    "LogProb",
    "PredictorCorrector",
    "ProbabilityFlow",
    "Probing",
    "Rectified",
    "ReverseSDE",
    "SDEDPMSolverPP",
    "ScoreModel",
    "SingleDPMSolverPP",
    "SubVP",
    "bits_over_gaussian",
    "bits_per_dim",
    "data",
    "elbo",
    "likelihood",
    "load",
    "log_prob",
    "model",
    "nn",
    "plot",
    "posterior",
    "prior_mismatch",
    "sample",
    "sample_and_log_prob",
    "score_matching_loss",
    "sde",
    "solve",
    "training",
]
