"""Data whose posterior is known in closed form, their simulator, and right and wrong models of the posterior."""

from dataclasses import dataclass

import jax.numpy as jnp
import jax.random as jr
from classes import forget

import sgm
from sgm.data import AbstractSimulator
from sgm.data.simulated import AbstractSimulated
from sgm.model import AbstractModel, Gaussian

NOISE = 0.5
BIAS = 0.45
STD = (NOISE**2 / (1 + NOISE**2)) ** 0.5


@dataclass(frozen=True)
class Noisy(AbstractSimulated):
    """theta ~ N(0, I), in the plane or on a line, and x = theta + noise is its condition."""

    shape: tuple[int, ...] = (2,)

    @property
    def conditioning(self):
        return sgm.nn.Conditioning(params=self.shape[0])

    def simulate(self, key, n):
        theta, noise = jr.normal(key, (2, n, *self.shape))
        return theta, {"params": theta + NOISE * noise}


class AddNoise(AbstractSimulator):
    """The simulator of these data."""

    noise: float = NOISE

    def __call__(self, key, theta):
        return theta + self.noise * jr.normal(key, theta.shape)


forget(AddNoise)  # Flags of other tests take the only simulator that has a name.


class Posterior(AbstractModel):
    """N(x / (1 + noise^2) + bias, (scale std)^2 I), which is exact for bias 0 and scale 1."""

    scale: float = 1.0
    bias: float = 0.0
    shape: tuple[int, ...] = (2,)

    def predict(self, level, u, cond=None, key=None):
        mean = cond.params / (1 + NOISE**2) + self.bias
        return Gaussian(mean, (self.scale * STD) ** 2 * jnp.eye(self.shape[0])).predict(level, u)


MODELS = {
    "exact": Posterior(),
    "narrow": Posterior(scale=0.5),
    "wide": Posterior(scale=2.0),
    "biased": Posterior(bias=BIAS),
}
WRONG = ("narrow", "wide", "biased")
DATA = Noisy()
# With 20 steps the standard deviation is 2% too large.
HOW = {"batch_size": 200, "sampler": sgm.DPMSolverPP(50), "progress": False}
