"""The handwritten digits of scikit-learn by the chain, network and objective of Sohl-Dickstein et al. 2015.

The network has forty temporal bumps where theirs has ten.
"""

from sgm.config import Config, ConvDenseConfig, EvaluateConfig, SampleConfig, SDEConfig, TrainConfig
from sgm.data import Digits

config = Config(
    data=Digits(),
    network=ConvDenseConfig(width=32, dense_width=320, dense_outputs=4, upper_width=64, bumps=40, dropout=0.1),
    sde=SDEConfig("DiscreteChain", "SohlDickstein", steps=1000),
    prediction="MeanCoefficient",
    variance="Learned",
    train=TrainConfig(
        steps=7000,
        batch_size=128,
        learning_rate=2e-3,
        weighting="Uniform",
        times="ChainSteps",
        objective="Bound",
        sample_every=3500,
    ),
    sample=SampleConfig(n=64, method="Ancestral", steps=999, grid="ChainGrid"),
    evaluate=EvaluateConfig(trace="hutchinson", batch_size=99),
)
