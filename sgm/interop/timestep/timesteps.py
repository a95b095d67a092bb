"""How networks of a timestep are told the noise level: what stands for it, and in which units they read and answer."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgm.checks import check_at_least
from sgm.sde.chain import DiscreteChain
from sgm.sde.level import cos_of
from sgm.types import Scalar

# Share of a chain's length by which a time that is found from its level in single precision may miss a whole one.
_ROUNDING = 5e-7


class Timestep(NamedTuple):
    """What stands for a noise level.

    Arguments:
        number: Number that the network embeds.
        input_scale: Factor of the prediction's input on its way to the network.
        output_scale: Factor of the network's output on its way to the prediction.
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
    """The timestep k - 1 of a chain at time k, from 0 to N - 1: whole at the chain's own levels, between them not.

    Arguments:
        chain: Chain on which the network is trained. It is never trained itself.
    """

    chain: DiscreteChain = eqx.field(static=True)

    def __call__(self, level):
        timestep = self.chain.time(level) - 1
        nearest = jnp.round(timestep)
        is_whole = jnp.abs(timestep - nearest) < _ROUNDING * self.chain.steps
        # To the bit, and with the derivative of what it was.
        whole = nearest + (timestep - jax.lax.stop_gradient(timestep))
        return Timestep(jnp.clip(jnp.where(is_whole, whole, timestep), 0, self.chain.steps - 1))


class FlowTimesteps(AbstractTimesteps):
    """The timestep N t of rectified flow at time t = sigma, from 0 to N.

    The shift of a scheduler, fixed or by the size of the image (`use_dynamic_shifting`), moves the times at which a
    sampler asks, not what a timestep means.

    Arguments:
        num_train_timesteps: Number N.
    """

    num_train_timesteps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        check_at_least("FlowTimesteps", "num_train_timesteps", self.num_train_timesteps)

    def __call__(self, level):
        return Timestep(self.num_train_timesteps * jax.nn.sigmoid(level))


class EDMTimesteps(AbstractTimesteps):
    """The timestep log(sigma/alpha) / 4 of EDM.

    Arguments:
        negated: Whether the output is minus that of EDM, as of prediction type "v_prediction" there.

    Reference: Karras et al. 2022 (arXiv:2206.00364, table 1).
    """

    negated: bool = eqx.field(static=True, default=False)

    def __call__(self, level):
        return Timestep(level / 4, output_scale=-1.0 if self.negated else 1.0)


class VETimesteps(AbstractTimesteps):
    """The timestep sigma of score_sde's variance-exploding networks, which give grad_x log p at x = x0 + sigma noise.

    In terms of u = cos(theta) x that is the score of u, which `sgm.model.Score` reads, once divided by cos(theta).

    Reference: Song et al. 2021 (arXiv:2011.13456, appendix C).
    """

    def __call__(self, level):
        scale = 1 / cos_of(level)
        return Timestep(jnp.exp(level), scale, scale)
