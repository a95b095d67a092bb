"""`sgm.data.Coins`: 36 heads of 48, in any order. Bits whose probability is known.

The process starts at noise of 0.14, where 3.5 standard deviations reach the end of a level.
"""

from functools import partial

from sgm.data import Coins
from sgm.evaluation import LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import TruncatedNormalDequantisation
from sgm.model import Karras
from sgm.nn import MLP
from sgm.sde import VP
from sgm.training import Adam, Training

experiment = Experiment(
    data=Coins(),
    network=partial(MLP, width=256, depth=3),
    sde=VP(t0=0.04),
    prediction=Karras(0.5),
    dequantisation=TruncatedNormalDequantisation(),
    training=Training(steps=20_000, batch_size=256, optimiser=Adam(2e-3), preview_every=10_000),
    metrics=(LogLikelihood(samples=8),),
    evaluation=Evaluation(n=400, batch_size=100),
)
