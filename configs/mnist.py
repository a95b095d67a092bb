"""MNIST, 28x28, from the hub."""

from functools import partial

from sgm.data import Images
from sgm.evaluation import LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.model import Karras
from sgm.nn import UNet
from sgm.solve import EulerMaruyama
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR, Training

experiment = Experiment(
    data=Images("ylecun/mnist", resolution=28, channels=1),
    network=partial(UNet, width=32, multipliers=(1, 2, 2), blocks=2, dropout=0.1),
    prediction=Karras(0.6),
    loss=Loss(KarrasWeighting(0.6), NormalLogSNR()),
    training=Training(steps=20_000, batch_size=128, optimiser=Adam(5e-4)),
    sampler=EulerMaruyama(200),
    metrics=(LogLikelihood(Hutchinson()),),
    evaluation=Evaluation(batch_size=64),
)
