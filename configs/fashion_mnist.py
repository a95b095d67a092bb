"""Fashion-MNIST, 28x28, conditioned on its ten classes, by the recipe of mnist.

The files are where the package dataset-fashion-mnist of Debian puts them; `--data.path` names another folder.
"""

from functools import partial

from sgm.data import Idx
from sgm.evaluation import LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson, TruncatedNormalDequantisation
from sgm.model import Karras
from sgm.nn import UNet
from sgm.sde import VP
from sgm.solve import EulerMaruyama
from sgm.training import Loss, Muon, Training

experiment = Experiment(
    data=Idx("/usr/share/datasets/fashion-mnist", classes=10),
    dequantisation=TruncatedNormalDequantisation(),
    network=partial(UNet, width=32, multipliers=(1, 2, 2), blocks=1, frequencies=9, longest_wave=2.0),
    sde=VP(t0=1.7e-5),
    prediction=Karras(),
    loss=Loss(condition_dropout=0.1),
    training=Training(steps=12_000, batch_size=64, optimiser=Muon(3e-3), average_decay=0.999),
    sampler=EulerMaruyama(500),
    metrics=(LogLikelihood(Hutchinson()),),
    evaluation=Evaluation(n=1000, batch_size=50),
)
