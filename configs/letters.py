"""`sgm.data.Letters` under a chain that masks letters. Strings whose entropy is known."""

from functools import partial

from sgm.data import Letters
from sgm.evaluation import CategoricalBound
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.model import Logits
from sgm.nn import UNet
from sgm.sde import AbsorbingChain, HarmonicBetas
from sgm.solve import CategoricalAncestral
from sgm.training import Adam, CategoricalLoss, Training

experiment = Experiment(
    data=Letters(),
    network=partial(UNet, width=64, multipliers=(1, 1), blocks=1),
    sde=AbsorbingChain(27, HarmonicBetas(500)),
    prediction=Logits(),
    loss=CategoricalLoss(),
    training=Training(steps=600, batch_size=64, optimiser=Adam(5e-3, warmup=100), preview_every=10_000),
    sampler=CategoricalAncestral(100),
    drawing=Drawing(n=24),
    metrics=(CategoricalBound(steps=50),),
    evaluation=Evaluation(n=200, batch_size=200),
)
