"""Gaussian random fields conditioned on a noisy map of them with a rectangle hidden; the exact posterior is known."""

from functools import partial

from sgm.data import GaussianFieldMap
from sgm.evaluation import LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.nn import UNet
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR, Training

experiment = Experiment(
    data=GaussianFieldMap(resolution=16),
    network=partial(UNet, width=24, multipliers=(1, 2, 4), blocks=1),
    loss=Loss(KarrasWeighting(), NormalLogSNR()),
    training=Training(steps=3000, batch_size=64, optimiser=Adam(3e-3, warmup=100), preview_every=1500),
    metrics=(LogLikelihood(Hutchinson()),),
    evaluation=Evaluation(n=256, batch_size=64),
)
