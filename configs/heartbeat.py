"""`sgm.data.Heartbeat` under the binomial chain of Sohl-Dickstein et al. 2015, with its network, on its bound."""

from functools import partial

from sgm.data import Heartbeat
from sgm.evaluation import CategoricalBound
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.likelihood import ForwardEntropy
from sgm.model import Evidence
from sgm.nn import StepwisePerceptron
from sgm.sde import BinomialChain, HarmonicBetas
from sgm.solve import CategoricalAncestral
from sgm.training import Adam, CategoricalLoss, Training

experiment = Experiment(
    data=Heartbeat(),
    network=partial(StepwisePerceptron, width=50, depth=3, readouts=2000),
    sde=BinomialChain(HarmonicBetas(2000), p=0.2),
    prediction=Evidence(),
    loss=CategoricalLoss(),
    training=Training(steps=6_000, batch_size=2000, optimiser=Adam(2e-3), preview_every=10_000),
    sampler=CategoricalAncestral(),
    drawing=Drawing(n=64),
    metrics=(CategoricalBound(ForwardEntropy()), CategoricalBound()),
    evaluation=Evaluation(n=2000, batch_size=2000),
)
