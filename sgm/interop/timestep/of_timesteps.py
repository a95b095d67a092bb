"""A network of a timestep as a network of the noise level."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.checks import check_instance
from sgm.interop.timestep.network import AbstractTimestepNetwork
from sgm.interop.timestep.timesteps import AbstractTimesteps
from sgm.nn.condition import Condition
from sgm.nn.conditioning import Conditioning
from sgm.nn.layers import Image, Precision, check_options, to_precision
from sgm.nn.network import AbstractLevelNetwork
from sgm.types import Scalar


class OfTimesteps(AbstractLevelNetwork):
    """A network of a timestep as `sgm.ScoreModel` takes it. Its condition is a label, if it has classes.

    Arguments:
        network: Network of a timestep.
        timesteps: Rule that makes a timestep of a noise level.
        precision: Precision in which the network computes; its parameters and its output keep their own.

    Raises:
        TypeError: for a network that reads no timestep, and timesteps that are no `AbstractTimesteps`.
        ValueError: for a precision that is not known.

    Example:
        >>> dit = sgm.interop.diffusers.DiTTransformer2DModel(2, 8, num_layers=1, sample_size=8, key=key)
        >>> model = ScoreModel(OfTimesteps(dit, ChainTimesteps(chain)), Noise(), shape=dit.shape)
        >>> model.shape, model.conditioning.classes
        ((8, 8, 4), 1000)
    """

    network: AbstractTimestepNetwork
    timesteps: AbstractTimesteps
    precision: Precision = eqx.field(static=True)

    def __init__(
        self, network: AbstractTimestepNetwork, timesteps: AbstractTimesteps, precision: Precision = "float32"
    ):
        check_instance("OfTimesteps", "network", network, AbstractTimestepNetwork, "UNet2DModel(key=key)")
        check_instance("OfTimesteps", "timesteps", timesteps, AbstractTimesteps, "ChainTimesteps(chain)")
        check_options("OfTimesteps", 0.0, precision)
        self.network, self.timesteps, self.precision = network, timesteps, precision

    @property
    def conditioning(self) -> Conditioning:
        """The condition that the network reads."""
        return Conditioning(classes=self.network.classes, null=self.network.has_null)

    def __call__(
        self, level: Scalar, u: Image, cond: Condition | None = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "height width outputs"]:
        """Compute the output at noise level log tan(theta), of shape (height, width, outputs)."""
        self.conditioning.check_one(cond)
        timestep = self.timesteps(level)
        inputs = to_precision(u * jnp.asarray(timestep.input_scale, u.dtype), self.precision)
        output = self.network(inputs, timestep.number, self._label(cond), key).astype(u.dtype)
        return output * jnp.asarray(timestep.output_scale, u.dtype)

    def _label(self, cond):
        null = jnp.asarray(self.network.classes) if self.network.has_null else None
        if cond is None or cond.label is None:
            return null
        if null is None or cond.dropped is None:
            return cond.label
        return jnp.where(cond.dropped, null.astype(cond.label.dtype), cond.label)
