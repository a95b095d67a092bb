"""CIFAR-10 conditioned on its ten classes, by a DiT-S/2 in bfloat16. Sized for an accelerator."""

from sgm.config import Config, DiTConfig, EvaluateConfig, SampleConfig, TrainConfig
from sgm.data import Images
from sgm.nn import DIT_PRESETS

config = Config(
    data=Images("uoft-cs/cifar10", resolution=32, flip=True, classes=10),
    network=DiTConfig(**DIT_PRESETS["S/2"], dropout=0.1, precision="bfloat16"),
    sigma_data=0.5,
    train=TrainConfig(
        steps=200_000,
        batch_size=128,
        learning_rate=2e-4,
        warmup=5000,
        average_decay=0.9999,
        condition_dropout=0.1,
        weighting="Karras",
        times="NormalLogSNR",
        checkpoint_every=5000,
        sample_every=10_000,
    ),
    sample=SampleConfig(n=64, steps=500),
    evaluate=EvaluateConfig(trace="hutchinson", batch_size=64),
)
