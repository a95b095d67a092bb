"""CIFAR-10, from the hub, by the chain, network and objective of Sohl-Dickstein et al. 2015, for an accelerator."""

from functools import partial

from sgm.data import Images
from sgm.evaluation import ChainBound, LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.model import Learned, MeanCoefficient, WithVariance
from sgm.nn import ConvDense
from sgm.sde import DiscreteChain, SohlDicksteinBetas
from sgm.solve import Ancestral, ChainGrid
from sgm.training import Bound, ChainSteps, Loss, Training, UniformWeighting

chain, variance = DiscreteChain(SohlDicksteinBetas(1000)), Learned(1000)
experiment = Experiment(
    data=Images("uoft-cs/cifar10", resolution=32),
    network=partial(
        ConvDense,
        convolutions=6,
        width=100,
        dense=6,
        dense_width=1000,
        dense_outputs=5,
        upper=4,
        upper_width=100,
    ),
    sde=chain,
    prediction=WithVariance(MeanCoefficient(chain)),
    loss=Loss(UniformWeighting(), ChainSteps(), Bound(variance)),
    training=Training(steps=200_000, batch_size=200, checkpoint_every=5000, preview_every=10_000),
    sampler=Ancestral(999, variance, ChainGrid()),
    metrics=(LogLikelihood(Hutchinson()), ChainBound(variance)),
    evaluation=Evaluation(batch_size=64),
)
