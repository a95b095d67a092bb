"""The perceptron of Sohl-Dickstein et al. 2015 for sequences of bits."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.conditioning import Conditioning
from sgm.nn.layers import Linear, check_options, check_shape
from sgm.nn.network import AbstractNetwork


class StepwisePerceptron(AbstractNetwork):
    """Layers that all noise levels share, and a readout for each of `readouts` equal parts of sin(theta)^2.

    On a chain of `HarmonicBetas(readouts)` these are its steps, of which each has a readout of its own: sin(theta)^2 is
    k / N there. The output starts at zero. It is not conditioned.

    Arguments:
        shape: Shape of one example.
        width: Number of sigmoid units of a layer.
        depth: Number of layers.
        readouts: Number of readouts.
        outputs: Number of outputs of each entry, one after the other along the last axis.
        conditioning: What the network is conditioned on, which must be nothing.
        key: Key of the initial weights.

    Raises:
        ValueError: for sizes below 1, and a condition.

    Example:
        >>> network = StepwisePerceptron((20,), readouts=2000, key=jax.random.key(0))

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, appendix D.1.2).
    """

    layers: list[Linear]
    kernels: Float[Array, "readouts width features"]
    biases: Float[Array, "readouts features"]
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    readouts: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    conditioning: Conditioning = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 50,
        depth: int = 3,
        readouts: int = 2000,
        *,
        outputs: int = 1,
        conditioning: Conditioning = Conditioning(),
        key: PRNGKeyArray,
    ):
        check_shape("StepwisePerceptron", shape)
        sizes = {"width": width, "depth": depth, "readouts": readouts, "outputs": outputs}
        check_options("StepwisePerceptron", 0.0, "float32", **sizes)
        if conditioning.parts:
            raise ValueError(
                f"StepwisePerceptron: it takes no condition, but is to be given {', '.join(conditioning.parts)}; pass "
                "another network, such as MLP."
            )
        inputs, features = math.prod(shape), outputs * math.prod(shape)
        widths = [inputs, *[width] * depth]
        keys = jr.split(key, depth)
        self.layers = [Linear(*sizes, key=key) for *sizes, key in zip(widths, widths[1:], keys, strict=False)]
        self.kernels, self.biases = jnp.zeros((readouts, width, features)), jnp.zeros((readouts, features))
        self.shape, self.width, self.depth = tuple(shape), width, depth
        self.readouts, self.outputs, self.conditioning = readouts, outputs, conditioning

    def __call__(
        self, level: Float[Array, ""], u: Float[Array, "*shape"], cond=None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`."""
        part = jnp.rint(self.readouts * jax.nn.sigmoid(2 * level)).astype(int)
        place = jnp.clip(part, 1, self.readouts) - 1
        hidden = u.reshape(-1)
        for layer in self.layers:
            hidden = jax.nn.sigmoid(layer(hidden))
        output = hidden @ self.kernels[place].astype(u.dtype) + self.biases[place].astype(u.dtype)
        return output.reshape(*u.shape[:-1], -1)
