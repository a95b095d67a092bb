"""CIFAR-10, 32x32, from the hub, by the DDPM++ of 61M parameters. Sized for an accelerator."""

from sgm.config import Config, EvaluateConfig, SampleConfig, TrainConfig, UNetConfig
from sgm.data import Images

config = Config(
    data=Images("uoft-cs/cifar10", resolution=32, flip=True),
    network=UNetConfig(width=128, multipliers=(2, 2, 2), blocks=4, attention=(16,), dropout=0.13),
    sigma_data=0.5,
    train=TrainConfig(
        steps=200_000,
        batch_size=128,
        learning_rate=2e-4,
        warmup=5000,
        average_decay=0.9999,
        weighting="Karras",
        times="NormalLogSNR",
        checkpoint_every=5000,
        sample_every=10_000,
    ),
    sample=SampleConfig(n=64, steps=500),
    evaluate=EvaluateConfig(trace="hutchinson", batch_size=64),
)
