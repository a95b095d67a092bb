"""`sgm.data.Heartbeat` under the binomial chain of Sohl-Dickstein et al. 2015, on its bound.

The network is that of the paper, three layers of 50 sigmoids, with a readout for each 64th of the chain.
"""

from functools import partial

from sgm.data import Heartbeat
from sgm.evaluation import CategoricalBound
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.likelihood import ForwardEntropy
from sgm.model import Logits
from sgm.nn import StepwisePerceptron
from sgm.sde import BinomialChain, HarmonicBetas
from sgm.solve import CategoricalAncestral
from sgm.training import CategoricalLoss, Muon, Training

experiment = Experiment(
    data=Heartbeat(),
    network=partial(StepwisePerceptron, width=50, depth=3, readouts=64),
    sde=BinomialChain(HarmonicBetas(2000), p=0.2),
    prediction=Logits(),
    loss=CategoricalLoss(),
    training=Training(steps=6_000, batch_size=1000, optimiser=Muon(1e-2), preview_every=10_000),
    sampler=CategoricalAncestral(),
    drawing=Drawing(n=64),
    metrics=(CategoricalBound(ForwardEntropy()), CategoricalBound()),
    evaluation=Evaluation(n=1000, batch_size=1000),
)
