"""MNIST, from the hub, by the chain, network and objective of Sohl-Dickstein et al. 2015."""

from sgm.config import Config, ConvDenseConfig, EvaluateConfig, SampleConfig, SDEConfig, TrainConfig
from sgm.data import Images

config = Config(
    data=Images("ylecun/mnist", resolution=28, channels=1),
    network=ConvDenseConfig(),
    sde=SDEConfig("DiscreteChain", "SohlDickstein", steps=1000),
    prediction="MeanCoefficient",
    variance="Learned",
    train=TrainConfig(
        steps=2500,
        batch_size=128,
        weighting="Uniform",
        times="ChainSteps",
        objective="Bound",
        sample_every=1250,
    ),
    sample=SampleConfig(n=64, method="Ancestral", steps=999, grid="ChainGrid"),
    evaluate=EvaluateConfig(trace="hutchinson", n=128, batch_size=64),
)
