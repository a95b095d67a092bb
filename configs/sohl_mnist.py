"""MNIST, from the hub, by the chain, network and objective of Sohl-Dickstein et al. 2015.

The network has forty temporal bumps where theirs has ten. On two cores it draws strokes; digits want more steps.
"""

from functools import partial

from sgm.data import Images
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
    data=Images("ylecun/mnist", resolution=28, channels=1),
    network=partial(
        ConvDense,
        dense_outputs=4,
        upper_width=32,
        bumps=40,
    ),
    sde=chain,
    prediction=WithVariance(MeanCoefficient(chain)),
    loss=Loss(UniformWeighting(), ChainSteps(), Bound(variance)),
    training=Training(steps=3500, batch_size=64, optimiser=Adam(2e-3), preview_every=1750),
    sampler=Ancestral(999, variance, ChainGrid()),
    metrics=(LogLikelihood(Hutchinson()), ChainBound(variance)),
    evaluation=Evaluation(n=128, batch_size=64),
)
