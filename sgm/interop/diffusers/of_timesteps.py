"""A network of diffusers as a network of the noise level."""

import jax.numpy as jnp

from sgm.interop.diffusers.network import AbstractDiffusersNetwork
from sgm.interop.diffusers.timesteps import AbstractTimesteps
from sgm.nn.conditioning import Conditioning
from sgm.nn.network import AbstractNetwork


class OfTimesteps(AbstractNetwork):
    """A network of diffusers that `sgm.ScoreModel` can read, whose condition is a label if it has classes.

    Arguments:
        network: Network of a timestep.
        timesteps: Timestep of a noise level.

    Example:
        >>> model = ScoreModel(OfTimesteps(unet, ChainTimesteps(chain)), Noise(), shape=unet.shape)
    """

    network: AbstractDiffusersNetwork
    timesteps: AbstractTimesteps

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one example: (height, width, channels)."""
        return self.network.shape

    @property
    def conditioning(self):
        return Conditioning(classes=self.network.classes, null=self.network.null_label is not None)

    def __call__(self, level, u, cond=None, key=None):
        self.conditioning.check_one(cond)
        timestep = self.timesteps(level)
        inputs = u * jnp.asarray(timestep.input_scale, u.dtype)
        output = self.network(inputs, timestep.number, self._label(cond), key)
        return output * jnp.asarray(timestep.output_scale, output.dtype)

    def _label(self, cond):
        if self.network.classes is None:
            return None
        null = self.network.null_label
        if cond is None or cond.label is None:
            assert null is not None  # Else a condition must have a label.
            return jnp.asarray(null)
        if null is None or cond.dropped is None:
            return cond.label
        return jnp.where(cond.dropped, jnp.asarray(null, cond.label.dtype), cond.label)
