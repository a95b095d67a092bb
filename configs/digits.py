"""The handwritten digits of scikit-learn, 8x8, 17 grey levels: trains in minutes on a laptop."""

from functools import partial

from sgm.data import Digits
from sgm.experiment import Evaluation, Experiment
from sgm.model import Karras
from sgm.nn import MLP
from sgm.training import Adam, Training

experiment = Experiment(
    data=Digits(),
    network=partial(MLP, width=320, depth=4, dropout=0.15),
    prediction=Karras(0.7),
    training=Training(steps=11_000, batch_size=256, optimiser=Adam(4e-3), preview_every=5500),
    evaluation=Evaluation(batch_size=99),
)
