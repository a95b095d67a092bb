"""`sgm.data.Coins`: 36 heads of 48, in any order. Bits whose probability is known."""

from sgm.config import Config, EvaluateConfig, MLPConfig, SampleConfig, TrainConfig
from sgm.data import Coins

config = Config(
    data=Coins(),
    network=MLPConfig(width=256, depth=3),
    sigma_data=0.9,
    train=TrainConfig(steps=10_000, batch_size=256, learning_rate=2e-3, sample_every=5000),
    sample=SampleConfig(n=64, steps=500),
    evaluate=EvaluateConfig(trace="exact", n=1000, batch_size=250),
)
