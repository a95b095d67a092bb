"""Gaussian random fields on a torus, conditioned on amplitude and slope, by a UNet that knows of it."""

from functools import partial

from sgm.data import GaussianField
from sgm.evaluation import LogLikelihood, PowerSpectrum
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.nn import UNet
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR, Training

experiment = Experiment(
    data=GaussianField(resolution=16),
    network=partial(UNet, width=24, multipliers=(1, 2, 4), blocks=1, periodic=True),
    loss=Loss(KarrasWeighting(), NormalLogSNR()),
    training=Training(steps=3000, batch_size=64, optimiser=Adam(3e-3, warmup=100), preview_every=1500),
    metrics=(LogLikelihood(Hutchinson()), PowerSpectrum()),
    evaluation=Evaluation(n=256, batch_size=64),
)
