"""`sgm.data.Letters` under a chain that masks letters. Strings whose entropy is known."""

from functools import partial

from sgm.data import Letters
from sgm.evaluation import CategoricalBound
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.model import Evidence
from sgm.nn import UNet
from sgm.sde import AbsorbingChain, HarmonicBetas
from sgm.solve import CategoricalAncestral
from sgm.training import Adam, CategoricalLoss, Training

experiment = Experiment(
    data=Letters(),
    network=partial(UNet, width=64, multipliers=(1, 1), blocks=1),
    sde=AbsorbingChain(27, HarmonicBetas(500)),
    prediction=Evidence(),
    loss=CategoricalLoss(),
    training=Training(steps=3_000, batch_size=128, optimiser=Adam(3e-3, warmup=200), preview_every=10_000),
    sampler=CategoricalAncestral(),
    drawing=Drawing(n=64),
    metrics=(CategoricalBound(steps=50),),
    evaluation=Evaluation(n=500, batch_size=500),
)
