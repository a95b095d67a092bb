"""CIFAR-10, from the hub, by the chain, network and objective of Sohl-Dickstein et al. 2015, for an accelerator."""

from sgm.config import Config, ConvDenseConfig, EvaluateConfig, SampleConfig, SDEConfig, TrainConfig
from sgm.data import Images

config = Config(
    data=Images("uoft-cs/cifar10", resolution=32),
    network=ConvDenseConfig(
        convolutions=6,
        width=100,
        dense=6,
        dense_width=1000,
        dense_outputs=5,
        upper=4,
        upper_width=100,
    ),
    sde=SDEConfig("DiscreteChain", "SohlDickstein", steps=1000),
    prediction="MeanCoefficient",
    variance="Learned",
    train=TrainConfig(
        steps=200_000,
        batch_size=200,
        weighting="Uniform",
        times="ChainSteps",
        objective="Bound",
        checkpoint_every=5000,
        sample_every=10_000,
    ),
    sample=SampleConfig(n=64, method="Ancestral", steps=999, grid="ChainGrid"),
    evaluate=EvaluateConfig(trace="hutchinson", batch_size=64),
)
