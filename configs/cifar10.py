"""CIFAR-10, 32x32, from the hub, by the DDPM++ of 61M parameters. Sized for an accelerator."""

from functools import partial

from sgm.data import Images
from sgm.evaluation import LogLikelihood
from sgm.experiment import Evaluation, Experiment
from sgm.likelihood import Hutchinson
from sgm.model import Karras
from sgm.nn import UNet
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR, Training

experiment = Experiment(
    data=Images("uoft-cs/cifar10", resolution=32, flip=True),
    network=partial(UNet, width=128, multipliers=(2, 2, 2), blocks=4, attention=(16,), dropout=0.13),
    prediction=Karras(0.5),
    loss=Loss(KarrasWeighting(0.5), NormalLogSNR()),
    training=Training(
        steps=200_000,
        batch_size=128,
        optimiser=Adam(2e-4, warmup=5000),
        average_decay=0.9999,
        checkpoint_every=5000,
        preview_every=10_000,
    ),
    metrics=(LogLikelihood(Hutchinson()),),
    evaluation=Evaluation(batch_size=64),
)
