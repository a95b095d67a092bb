"""Gaussian random fields conditioned on a noisy map of them with a rectangle hidden; the exact posterior is known."""

from sgm.config import Config, EvaluateConfig, SampleConfig, TrainConfig, UNetConfig
from sgm.data import GaussianFieldMap

config = Config(
    data=GaussianFieldMap(resolution=16),
    network=UNetConfig(width=24, multipliers=(1, 2, 4), blocks=1),
    sigma_data=1.0,
    train=TrainConfig(
        steps=3000,
        batch_size=64,
        learning_rate=3e-3,
        warmup=100,
        weighting="Karras",
        times="NormalLogSNR",
        sample_every=1500,
    ),
    sample=SampleConfig(n=64, steps=500),
    evaluate=EvaluateConfig(trace="hutchinson", n=256, batch_size=64),
)
