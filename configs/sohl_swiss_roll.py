"""`sgm.data.StandardSwissRoll` under the chain of Sohl-Dickstein et al. 2015, trained on its variational bound."""

from sgm.config import Config, ConvDenseConfig, EvaluateConfig, SampleConfig, SDEConfig, TrainConfig
from sgm.data import StandardSwissRoll

config = Config(
    data=StandardSwissRoll(),
    network=ConvDenseConfig(dense=4, dense_width=128, dense_outputs=64, upper=1, bumps=40),
    sde=SDEConfig("DiscreteChain", "SohlDickstein", steps=1000),
    prediction="MeanCoefficient",
    variance="Learned",
    train=TrainConfig(
        steps=40_000,
        batch_size=512,
        learning_rate=2e-3,
        weighting="Uniform",
        times="ChainSteps",
        objective="Bound",
        sample_every=20_000,
    ),
    sample=SampleConfig(n=4000, method="Ancestral", steps=999, grid="ChainGrid", frames=40),
    evaluate=EvaluateConfig(n=10_000, batch_size=1000, bound_steps=999),
)
