"""Periodic Gaussian volumes of 16 x 16 x 16 voxels, whose power spectrum is known, by a UNet of three dimensions."""

from functools import partial

from sgm.data import GaussianVolume
from sgm.evaluation import PowerSpectrum
from sgm.experiment import Evaluation, Experiment
from sgm.nn import UNet
from sgm.solve import DPMSolverPP
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR, Training

experiment = Experiment(
    data=GaussianVolume(resolution=16),
    network=partial(UNet, width=16, multipliers=(1, 2), blocks=1, periodic=True),
    loss=Loss(KarrasWeighting(), NormalLogSNR()),
    training=Training(steps=1000, batch_size=16, optimiser=Adam(3e-3, warmup=100), preview_every=1000),
    sampler=DPMSolverPP(20),
    metrics=(PowerSpectrum(),),  # LogLikelihood takes longer than the training.
    evaluation=Evaluation(n=64, batch_size=32),
)
