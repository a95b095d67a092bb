"""What a network's output means."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from sgm.model.base import Estimate, Example, Scalar, from_denoised, from_noise, from_velocity
from sgm.sde.chain import DiscreteChain

Network = Callable[[Example], Example]


class AbstractPrediction(eqx.Module):
    """Reads a network of `u` at a given noise level as an estimate."""

    @abstractmethod
    def estimate(self, network: Network, theta: Scalar, u: Example) -> Estimate:
        """Call the network once and interpret its output."""


class Noise(AbstractPrediction):
    """The output is E[noise | u]. Source: Ho et al. 2020 (arXiv:2006.11239)."""

    def estimate(self, network, theta, u):
        return from_noise(theta, u, network(u))


class Denoised(AbstractPrediction):
    """The output is E[x0 | u]."""

    def estimate(self, network, theta, u):
        return from_denoised(theta, u, network(u))


class Velocity(AbstractPrediction):
    """The output is E[du/dtheta | u]. Source: Salimans and Ho 2022 (arXiv:2202.00512)."""

    def estimate(self, network, theta, u):
        return from_velocity(theta, u, network(u))


class Score(AbstractPrediction):
    """The output is grad_u log p(u) = -E[noise | u] / sin(theta). Source: Song et al. 2021 (arXiv:2011.13456)."""

    def estimate(self, network, theta, u):
        return from_noise(theta, u, -jnp.sin(theta) * network(u))


class MeanCoefficient(AbstractPrediction):
    """The output is c in sqrt(1 - beta) u + sqrt(beta) c, the mean of the reverse of the step that ends at this level.

    The step is the chain's from k - 1 to k, where u = x. Its mean is (u - beta / sin(theta) noise) / sqrt(1 - beta), so

        velocity = -tan(theta) sqrt((1 - beta) / beta) c        noise = sin(theta) (u - sqrt((1 - beta) / beta) c)

    and an output of 0 is exact for data from N(0, I). At a time t between k and k + 1 the step is the one from t - 1,
    so that beta has no jumps: with B the chain's integrated rate, -log(1 - beta) = B(t) - B(t - 1). The chain is never
    trained. Source: Sohl-Dickstein et al. 2015 (arXiv:1503.03585), by its published code (`get_mu_sigma`).
    """

    increments: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, chain: DiscreteChain):
        self.increments = tuple(np.asarray(chain.schedule.increments, np.float64).tolist())

    def estimate(self, network, theta, u):
        tan = jnp.tan(theta)
        # B(t) - B(t - 1) is linear in B(t) from one step's end to the next.
        ends, increments = (jnp.asarray(b, theta.dtype) for b in (np.cumsum(self.increments), self.increments))
        increment = jnp.interp(jnp.log1p(tan**2), ends, increments)
        return from_velocity(theta, u, -tan / jnp.sqrt(jnp.expm1(increment)) * network(u))


class WithVariance(AbstractPrediction):
    """The first half of the output's last axis is that of `mean`; the second is the model's second output.

    Source: Nichol and Dhariwal 2021 (arXiv:2102.09672, section 3.1).
    """

    mean: AbstractPrediction = Noise()

    def estimate(self, network, theta, u):
        second = []

        def first(inputs):
            output, rest = jnp.split(network(inputs), 2, axis=-1)
            second.append(rest)
            return output

        estimate = self.mean.estimate(first, theta, u)
        return dataclasses.replace(estimate, log_variance=second[0])


class Karras(AbstractPrediction):
    """The output F corrects the exact answer for Gaussian data of standard deviation `sigma_data`.

    With q^2 = cos^2 sigma_data^2 + sin^2, the variance of such u, the network is called on u / q and

        x0       = (cos sigma_data^2 / q^2) u + (sin sigma_data / q) F
        noise    = (sin / q^2) u - (cos sigma_data / q) F
        velocity = sin cos (1 - sigma_data^2) / q^2 u - (sigma_data / q) F

    Source: Karras et al. 2022 (arXiv:2206.00364, table 1), whose x is u / cos(theta) and sigma tan(theta).
    """

    sigma_data: float = 0.5

    def __check_init__(self):
        if not self.sigma_data > 0:
            raise ValueError(f"Karras: got sigma_data={self.sigma_data}; pass the standard deviation of the data, > 0.")

    def estimate(self, network, theta, u):
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        variance = cos**2 * self.sigma_data**2 + sin**2
        q = jnp.sqrt(variance)
        output = self.sigma_data / q * network(u / q)
        return Estimate(
            denoised=cos * self.sigma_data**2 / variance * u + sin * output,
            noise=sin / variance * u - cos * output,
            velocity=sin * cos * (1 - self.sigma_data**2) / variance * u - output,
        )
