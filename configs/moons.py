"""`sgm.data.Moons`, a distribution in the plane."""

from functools import partial

from sgm.data import Moons
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.nn import MLP
from sgm.training import Adam, Training

experiment = Experiment(
    data=Moons(),
    network=partial(MLP, width=128, depth=3),
    training=Training(steps=10_000, batch_size=512, optimiser=Adam(2e-3), preview_every=5000),
    drawing=Drawing(n=4000, frames=40),
    evaluation=Evaluation(n=2000, batch_size=1000),
)
