"""MNIST, 28x28, from the hub."""

from sgm.config import Config, EvaluateConfig, SampleConfig, TrainConfig, UNetConfig
from sgm.data import Images

config = Config(
    data=Images("ylecun/mnist", resolution=28, channels=1),
    network=UNetConfig(width=32, multipliers=(1, 2, 2), blocks=2, dropout=0.1),
    sigma_data=0.6,
    train=TrainConfig(steps=20_000, batch_size=128, learning_rate=5e-4, weighting="Karras", times="NormalLogSNR"),
    sample=SampleConfig(n=64, steps=200),
    evaluate=EvaluateConfig(trace="hutchinson", batch_size=64),
)
