"""MNIST, 28x28, conditioned on its ten digits, which one example in ten withholds; trained for the likelihood.

The levels are seen through noise of a sixth of a level's width, in training as in evaluation. The waves of the network
are whole fractions of a level long, which tell the noise from the level.
"""

from functools import partial

from sgm.data import Images
from sgm.evaluation import ContinuousBound
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import TruncatedNormalDequantisation
from sgm.model import Karras
from sgm.nn import UNet
from sgm.sde import VP
from sgm.solve import EulerMaruyama
from sgm.training import Loss, Muon, Training

experiment = Experiment(
    data=Images("ylecun/mnist", resolution=28, channels=1, classes=10),
    dequantisation=TruncatedNormalDequantisation(),
    network=partial(UNet, width=32, multipliers=(1, 2, 2), blocks=1, frequencies=9, longest_wave=2.0),
    sde=VP(t0=1.7e-5),
    prediction=Karras(),
    loss=Loss(condition_dropout=0.1),
    training=Training(steps=12_000, batch_size=64, optimiser=Muon(3e-3), average_decay=0.999),
    sampler=EulerMaruyama(500),
    metrics=(ContinuousBound(noise_levels=8),),
    evaluation=Evaluation(n=10_000, batch_size=50),
)
