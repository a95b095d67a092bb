"""`sgm.data.DeadLeaves`, 16x16, rendered on demand: opaque discs of random size and grey level over each other."""

from sgm.config import Config, EvaluateConfig, SampleConfig, TrainConfig, UNetConfig
from sgm.data import DeadLeaves

config = Config(
    data=DeadLeaves(resolution=16, r_max=8.0),
    network=UNetConfig(width=32, multipliers=(1, 2), blocks=1),
    sigma_data=1.0,
    train=TrainConfig(steps=3500, batch_size=32, learning_rate=2e-3, sample_every=1750),
    sample=SampleConfig(n=64, steps=200),
    evaluate=EvaluateConfig(trace="hutchinson", n=200, batch_size=50),
)
