"""Oxford flowers conditioned on their 102 classes, which one condition in ten leaves out. Sized for an accelerator."""

from sgm.config import Config, EvaluateConfig, SampleConfig, TrainConfig, UNetConfig
from sgm.data import Images

config = Config(
    data=Images("nelorth/oxford-flowers", resolution=64, flip=True, classes=102),
    network=UNetConfig(width=32, multipliers=(1, 2, 4, 8), blocks=2, dropout=0.1),
    sigma_data=0.5,
    train=TrainConfig(
        steps=100_000,
        batch_size=64,
        learning_rate=2e-4,
        warmup=1000,
        average_decay=0.9999,
        condition_dropout=0.1,
        weighting="Karras",
        times="NormalLogSNR",
        checkpoint_every=100,
        sample_every=5000,
    ),
    sample=SampleConfig(n=16, steps=100, tolerance=1e-3),
    evaluate=EvaluateConfig(trace="hutchinson", batch_size=16),
)
