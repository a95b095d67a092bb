"""`sgm.data.EightGaussians`, a distribution in the plane."""

from sgm.config import Config, EvaluateConfig, MLPConfig, SampleConfig, TrainConfig
from sgm.data import EightGaussians

config = Config(
    data=EightGaussians(),
    network=MLPConfig(width=128, depth=3),
    sigma_data=2.0,
    train=TrainConfig(steps=20_000, batch_size=512, learning_rate=2e-3, sample_every=10_000),
    sample=SampleConfig(n=4000, steps=500, frames=40),
    evaluate=EvaluateConfig(trace="exact", n=10_000, batch_size=1000),
)
