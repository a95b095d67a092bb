"""`sgm.data.DeadLeaves`, 16x16, rendered on demand: opaque discs of random size and grey level over each other."""

from functools import partial

from sgm.data import DeadLeaves
from sgm.evaluation import LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.nn import UNet
from sgm.solve import EulerMaruyama
from sgm.training import Adam, Training

experiment = Experiment(
    data=DeadLeaves(resolution=16, r_max=8.0),
    network=partial(UNet, width=32, multipliers=(1, 2), blocks=1),
    training=Training(steps=3500, batch_size=32, optimiser=Adam(2e-3), preview_every=1750),
    sampler=EulerMaruyama(200),
    metrics=(LogLikelihood(Hutchinson()),),
    evaluation=Evaluation(n=200, batch_size=50),
)
