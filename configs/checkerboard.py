"""`sgm.data.Checkerboard`, a distribution in the plane."""

from sgm.config import Config, EvaluateConfig, MLPConfig, SampleConfig, SDEConfig, TrainConfig
from sgm.data import Checkerboard

config = Config(
    data=Checkerboard(),
    network=MLPConfig(width=128, depth=3, frequencies=6),
    sde=SDEConfig(t0=1e-4),
    sigma_data=2.3,
    train=TrainConfig(steps=20_000, batch_size=512, learning_rate=2e-3, sample_every=10_000),
    sample=SampleConfig(n=4000, steps=500, frames=40),
    evaluate=EvaluateConfig(trace="exact", n=10_000, batch_size=1000),
)
