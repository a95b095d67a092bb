"""Oxford flowers, 64x64, from the hub. Sized for an accelerator."""

from functools import partial

from sgm.data import Images
from sgm.evaluation import LogLikelihood
from sgm.experiment import Drawing, Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.model import Karras
from sgm.nn import UNet
from sgm.solve import EulerMaruyama
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR, Training

experiment = Experiment(
    data=Images("nelorth/oxford-flowers", resolution=64, flip=True),
    network=partial(UNet, width=32, multipliers=(1, 2, 4, 8), blocks=2, dropout=0.1),
    prediction=Karras(0.5),
    loss=Loss(KarrasWeighting(0.5), NormalLogSNR()),
    training=Training(
        steps=100_000,
        batch_size=64,
        optimiser=Adam(2e-4, warmup=1000),
        average_decay=0.9999,
        checkpoint_every=100,
        preview_every=5000,
    ),
    sampler=EulerMaruyama(100),
    drawing=Drawing(n=16, tolerance=1e-3),
    metrics=(LogLikelihood(Hutchinson()),),
    evaluation=Evaluation(batch_size=16),
)
