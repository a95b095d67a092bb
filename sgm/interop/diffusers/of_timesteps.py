"""A network of diffusers as a network of the noise level."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_instance
from sgm.interop.diffusers.network import AbstractDiffusersNetwork
from sgm.interop.diffusers.timesteps import AbstractTimesteps
from sgm.nn.condition import Condition
from sgm.nn.conditioning import Conditioning
from sgm.nn.layers import Image
from sgm.types import Scalar


class OfTimesteps(eqx.Module):
    """A network of diffusers that `sgm.ScoreModel` can read, whose condition is a label if it has classes.

    Arguments:
        network: Network of a timestep.
        timesteps: Timestep of a noise level.

    Example:
        >>> model = ScoreModel(OfTimesteps(unet, ChainTimesteps(chain)), Noise(), shape=unet.shape)
    """

    network: AbstractDiffusersNetwork
    timesteps: AbstractTimesteps

    def __check_init__(self):
        check_instance("OfTimesteps", "network", self.network, AbstractDiffusersNetwork, "UNet2DModel(key=key)")
        check_instance("OfTimesteps", "timesteps", self.timesteps, AbstractTimesteps, "ChainTimesteps(chain)")

    @property
    def conditioning(self) -> Conditioning:
        """What the network is conditioned on."""
        return Conditioning(classes=self.network.classes, null=self.network.null_label is not None)

    def __call__(
        self, level: Scalar, u: Image, cond: Condition | None = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "height width outputs"]:
        """Compute the output at noise level log tan(theta), of shape (height, width, outputs)."""
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
