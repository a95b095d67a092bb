"""`sgm.data.Checkerboard`, a distribution in the plane."""

from functools import partial

from sgm.data import Checkerboard
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.nn import MLP
from sgm.sde import VP
from sgm.training import Adam, Training

experiment = Experiment(
    data=Checkerboard(),
    network=partial(MLP, width=128, depth=3, frequencies=6),
    sde=VP(t0=1e-4),
    training=Training(steps=20_000, batch_size=512, optimiser=Adam(2e-3), preview_every=10_000),
    drawing=Drawing(n=4000, frames=40),
    evaluation=Evaluation(n=10_000, batch_size=1000),
)
