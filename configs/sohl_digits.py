"""The handwritten digits of scikit-learn by the chain, network and objective of Sohl-Dickstein et al. 2015.

The network has forty temporal bumps where theirs has ten.
"""

from functools import partial

from sgm.data import Digits
from sgm.evaluation import ChainBound, LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.model import Learned, MeanCoefficient, WithVariance
from sgm.nn import ConvDense
from sgm.sde import DiscreteChain, SohlDicksteinBetas
from sgm.solve import Ancestral, ChainGrid
from sgm.training import Adam, Bound, ChainSteps, Loss, Training, UniformWeighting

chain, variance = DiscreteChain(SohlDicksteinBetas(1000)), Learned(1000)
experiment = Experiment(
    data=Digits(),
    network=partial(
        ConvDense,
        width=32,
        dense_width=320,
        dense_outputs=4,
        upper_width=64,
        bumps=40,
        dropout=0.1,
    ),
    sde=chain,
    prediction=WithVariance(MeanCoefficient(chain)),
    loss=Loss(UniformWeighting(), ChainSteps(), Bound(variance)),
    training=Training(steps=7000, batch_size=128, optimiser=Adam(2e-3), preview_every=3500),
    sampler=Ancestral(999, variance, ChainGrid()),
    metrics=(LogLikelihood(Hutchinson()), ChainBound(variance)),
    evaluation=Evaluation(batch_size=99),
)
