"""MNIST, from the hub, by the chain, network and objective of Sohl-Dickstein et al. 2015.

The network has forty temporal bumps where theirs has ten. On two cores it draws strokes; digits want more steps.
"""

from sgm.config import Config, ConvDenseConfig, EvaluateConfig, SampleConfig, SDEConfig, TrainConfig
from sgm.data import Images

config = Config(
    data=Images("ylecun/mnist", resolution=28, channels=1),
    network=ConvDenseConfig(dense_outputs=4, upper_width=32, bumps=40),
    sde=SDEConfig("DiscreteChain", "SohlDickstein", steps=1000),
    prediction="MeanCoefficient",
    variance="Learned",
    train=TrainConfig(
        steps=3500,
        batch_size=64,
        learning_rate=2e-3,
        weighting="Uniform",
        times="ChainSteps",
        objective="Bound",
        sample_every=1750,
    ),
    sample=SampleConfig(n=64, method="Ancestral", steps=999, grid="ChainGrid"),
    evaluate=EvaluateConfig(trace="hutchinson", n=128, batch_size=64),
)
