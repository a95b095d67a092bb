"""The handwritten digits of scikit-learn, 8x8, 17 grey levels: trains in minutes on a laptop."""

from sgm.config import Config, EvaluateConfig, MLPConfig, SampleConfig, TrainConfig
from sgm.data import Digits

config = Config(
    data=Digits(),
    network=MLPConfig(width=320, depth=4, dropout=0.15),
    sigma_data=0.7,
    train=TrainConfig(steps=11_000, batch_size=256, learning_rate=4e-3, sample_every=5500),
    sample=SampleConfig(n=64, steps=500),
    evaluate=EvaluateConfig(trace="exact", batch_size=99),
)
