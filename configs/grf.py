"""Gaussian random fields of power-law spectra, conditioned on amplitude and slope; their exact likelihood is known."""

from sgm.config import Config, EvaluateConfig, SampleConfig, TrainConfig, UNetConfig
from sgm.data import GaussianField

config = Config(
    data=GaussianField(resolution=16),
    network=UNetConfig(width=32, multipliers=(1, 2), blocks=1),
    sigma_data=1.1,
    train=TrainConfig(steps=4000, batch_size=64, learning_rate=2e-3, warmup=100, sample_every=2000),
    sample=SampleConfig(n=64, steps=200),
    evaluate=EvaluateConfig(trace="hutchinson", n=256, batch_size=64),
)
