"""`sgm.data.StandardSwissRoll` under the chain of Sohl-Dickstein et al. 2015, trained on its variational bound."""

from functools import partial

from sgm.data import StandardSwissRoll
from sgm.evaluation import ChainBound, LogLikelihood
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.model import Learned, MeanCoefficient, WithVariance
from sgm.nn import ConvDense
from sgm.sde import DiscreteChain, SohlDicksteinBetas
from sgm.solve import Ancestral, ChainGrid
from sgm.training import Adam, Bound, ChainSteps, Loss, Training, UniformWeighting

chain, variance = DiscreteChain(SohlDicksteinBetas(1000)), Learned(1000)
experiment = Experiment(
    data=StandardSwissRoll(),
    network=partial(
        ConvDense,
        dense=4,
        dense_width=128,
        dense_outputs=64,
        upper=1,
        bumps=40,
    ),
    sde=chain,
    prediction=WithVariance(MeanCoefficient(chain)),
    loss=Loss(UniformWeighting(), ChainSteps(), Bound(variance)),
    training=Training(steps=40_000, batch_size=512, optimiser=Adam(2e-3), preview_every=20_000),
    sampler=Ancestral(999, variance, ChainGrid()),
    drawing=Drawing(n=4000, frames=40),
    metrics=(LogLikelihood(), ChainBound(variance, steps=999)),
    evaluation=Evaluation(n=10_000, batch_size=1000),
)
