"""`sgm.data.Coins`: 36 heads of 48, in any order. Bits whose probability is known.

The process starts at noise of 0.14, where 3.5 standard deviations reach the end of a level.
"""

from sgm.config import Config, EvaluateConfig, MLPConfig, SampleConfig, SDEConfig, TrainConfig
from sgm.data import Coins

config = Config(
    data=Coins(),
    network=MLPConfig(width=256, depth=3),
    sde=SDEConfig(t0=0.04),
    sigma_data=0.5,
    train=TrainConfig(
        steps=20_000, batch_size=256, learning_rate=2e-3, dequantisation="TruncatedNormal", sample_every=10_000
    ),
    sample=SampleConfig(n=64, steps=500),
    evaluate=EvaluateConfig(trace="exact", n=400, batch_size=100, samples=8),
)
