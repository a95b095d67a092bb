"""Signals of a Gaussian process, whose exact likelihood is known, by a UNet of one dimension."""

from functools import partial

from sgm.data import GaussianProcess
from sgm.evaluation import LogLikelihood, PowerSpectrum
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.nn import UNet
from sgm.solve import DPMSolverPP
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR, Training

experiment = Experiment(
    data=GaussianProcess(length=64),
    network=partial(UNet, width=32, multipliers=(1, 2, 2), blocks=1),
    loss=Loss(KarrasWeighting(), NormalLogSNR()),
    training=Training(steps=2000, batch_size=64, optimiser=Adam(3e-3, warmup=100), preview_every=2000),
    sampler=DPMSolverPP(20),
    metrics=(LogLikelihood(Hutchinson()), PowerSpectrum()),
    evaluation=Evaluation(n=256, batch_size=64),
)
