"""Rules that make a network's timestep, and scales of its input and output, of a noise level."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgm.checks import check_count
from sgm.sde.chain import DiscreteChain
from sgm.sde.level import cos_of
from sgm.types import Scalar

# Largest rounding error, as a share of a chain's length, of a time found from its level in single precision.
_ROUNDING = 5e-7


class Timestep(NamedTuple):
    """The timestep of a noise level, and the scales of a network's input and output there.

    Arguments:
        number: Number that the network embeds.
        input_scale: Factor of u that makes the network's input.
        output_scale: Factor of the network's output that makes what the prediction reads.
    """

    number: Scalar
    input_scale: Scalar | float = 1.0
    output_scale: Scalar | float = 1.0


class AbstractTimesteps(eqx.Module):
    """The rule that makes a timestep of a noise level."""

    @abstractmethod
    def __call__(self, level: Scalar) -> Timestep:
        """Find the timestep of a level log tan(theta) from -20 to 20, as `sgm.ScoreModel` passes it on."""


class ChainTimesteps(AbstractTimesteps):
    """The timestep k - 1 of a chain at time k, from 0 to N - 1. It is whole at the chain's own levels alone.

    Arguments:
        chain: Chain that the network was trained on. It is never trained itself.

    Example:
        >>> timesteps = ChainTimesteps(chain)
        >>> [float(timesteps(chain.level(k)).number) for k in (1, 2, 20)]
        [0.0, 1.0, 19.0]
    """

    chain: DiscreteChain = eqx.field(static=True)

    def __call__(self, level):
        timestep = self.chain.time(level) - 1
        nearest = jnp.round(timestep)
        is_whole = jnp.abs(timestep - nearest) < _ROUNDING * self.chain.steps
        # Exactly whole, with the derivative of the timestep before rounding.
        whole = nearest + (timestep - jax.lax.stop_gradient(timestep))
        return Timestep(jnp.clip(jnp.where(is_whole, whole, timestep), 0, self.chain.steps - 1))


class FlowTimesteps(AbstractTimesteps):
    """The timestep N t of rectified flow at time t = sigma, from 0 to N.

    The shift of a scheduler, fixed or by the size of the image (`use_dynamic_shifting`), changes the times at
    which a sampler evaluates the network, but not the timestep of a time.

    Arguments:
        num_train_timesteps: Number N.

    Raises:
        TypeError: for a number of timesteps that is not whole.
        ValueError: for fewer than one timestep.

    Example:
        >>> sde = sgm.Rectified()
        >>> round(float(FlowTimesteps(1000)(sde.level(0.25)).number), 3)
        250.0
    """

    num_train_timesteps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        check_count("FlowTimesteps", "num_train_timesteps", self.num_train_timesteps)

    def __call__(self, level):
        return Timestep(self.num_train_timesteps * jax.nn.sigmoid(level))


class EDMTimesteps(AbstractTimesteps):
    """The timestep log(sigma/alpha) / 4 of EDM.

    Arguments:
        negated: Whether the output is minus EDM's, as with prediction type "v_prediction" of diffusers.

    Example:
        >>> timesteps = EDMTimesteps()
        >>> round(float(timesteps(jnp.log(80.0)).number), 3)  # at sigma = 80, where EDM's samplers begin
        1.096

    Reference: Karras et al. 2022 (arXiv:2206.00364, table 1).
    """

    negated: bool = eqx.field(static=True, default=False)

    def __call__(self, level):
        return Timestep(level / 4, output_scale=-1.0 if self.negated else 1.0)


class VETimesteps(AbstractTimesteps):
    """The timestep sigma of score_sde's variance-exploding networks.

    Their output at x = x0 + sigma noise is grad_x log p. Divided by cos(theta), that is the score of
    u = cos(theta) x, which `sgm.model.Score` reads.

    Example:
        >>> timestep = VETimesteps()(jnp.log(3.0))  # at sigma = 3, where x is 10^(1/2) u
        >>> round(float(timestep.number), 4), round(float(timestep.input_scale), 4)
        (3.0, 3.1623)

    Reference: Song et al. 2021 (arXiv:2011.13456, appendix C).
    """

    def __call__(self, level):
        scale = 1 / cos_of(level)
        return Timestep(jnp.exp(level), scale, scale)
