"""Timesteps of the networks of EDM's baselines."""

import math

import equinox as eqx
import jax.numpy as jnp

from sgm.interop.timestep.timesteps import AbstractTimesteps, Timestep
from sgm.sde.base import AbstractSDE
from sgm.sde.level import cos_of


class VPTimesteps(AbstractTimesteps):
    """The timestep (steps - 1) t of a process at time t.

    Arguments:
        sde: Process. It is never trained.
        steps: Number of steps of the chain whose limit the process is.

    Example:
        >>> sde = sgm.VP()
        >>> round(float(VPTimesteps(sde, steps=1000)(sde.level(0.5)).number), 1)
        499.5

    Reference: Karras et al. 2022 (arXiv:2206.00364, table 1, "VP").
    """

    sde: AbstractSDE = eqx.field(static=True)
    steps: int = eqx.field(static=True, default=1000)

    def __call__(self, level):
        return Timestep((self.steps - 1) * self.sde.time(level))


class LogVETimesteps(AbstractTimesteps):
    """The timestep log(sigma / 2) of networks whose output at x = x0 + sigma noise is minus the noise.

    Example:
        >>> timesteps = LogVETimesteps()
        >>> float(timesteps(jnp.log(2.0)).number)  # at sigma = 2
        0.0

    Reference: Karras et al. 2022 (arXiv:2206.00364, table 1, "VE").
    """

    def __call__(self, level):
        return Timestep(level - math.log(2), input_scale=1 / cos_of(jnp.asarray(level)), output_scale=-1.0)
