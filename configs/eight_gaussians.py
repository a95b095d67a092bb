"""`sgm.data.EightGaussians`, a distribution in the plane."""

from functools import partial

from sgm.data import EightGaussians
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.nn import MLP
from sgm.training import Adam, Training

experiment = Experiment(
    data=EightGaussians(),
    network=partial(MLP, width=128, depth=3),
    training=Training(steps=20_000, batch_size=512, optimiser=Adam(2e-3), preview_every=10_000),
    drawing=Drawing(n=4000, frames=40),
    evaluation=Evaluation(n=10_000, batch_size=1000),
)
