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
from sgm.random import initial


class StepwisePerceptron(AbstractNetwork):
    """Layers that all noise levels share, and a readout for each of `readouts` equal parts of sin(theta)^2.

    On a chain of `HarmonicBetas(readouts)` these are its steps, of which each has a readout of its own: sin(theta)^2 is
    k / N there. A readout is kept as a sum, of one that all parts share, one that an eighth of them shares, and so on
    down to its own, so that all examples train it. The output starts at zero. It is not conditioned.

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
        >>> network = StepwisePerceptron((20, 1), readouts=2000, key=jax.random.key(0))
        >>> model = sgm.CategoricalModel(network, 2, shape=(20, 1))  # for sgm.BinomialChain(HarmonicBetas(2000))

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, appendix D.1.2).
    """

    layers: list[Linear]
    kernels: list[Float[Array, "_ width features"]]
    biases: list[Float[Array, "_ features"]]
    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    readouts: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    conditioning: Conditioning = eqx.field(static=True)
    parts: tuple[int, ...] = eqx.field(static=True)

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
        self.layers = [_sigmoid_layer(*sizes) for sizes in zip(widths[:-1], widths[1:], keys, strict=True)]
        self.parts = (*(8**power for power in range(math.ceil(math.log(readouts, 8)))), readouts)
        self.kernels = [jnp.zeros((parts, width, features)) for parts in self.parts]
        self.biases = [jnp.zeros((parts, features)) for parts in self.parts]
        self.shape, self.width, self.depth = tuple(shape), width, depth
        self.readouts, self.outputs, self.conditioning = readouts, outputs, conditioning

    def __call__(
        self, level: Float[Array, ""], u: Float[Array, "*shape"], cond=None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """The outputs, each of the shape of `u`, at `level = log tan(theta)`."""
        step = jnp.rint(self.readouts * jax.nn.sigmoid(2 * level)).astype(int)
        place = jnp.clip(step, 1, self.readouts) - 1
        hidden = u.reshape(-1)
        for layer in self.layers:
            hidden = jax.nn.sigmoid(layer(hidden))
        shares = [place * parts // self.readouts for parts in self.parts]
        kernel = sum(kernels[share] for kernels, share in zip(self.kernels, shares, strict=True))
        bias = sum(biases[share] for biases, share in zip(self.biases, shares, strict=True))
        output = hidden @ jnp.asarray(kernel, u.dtype) + jnp.asarray(bias, u.dtype)
        return output.reshape(*u.shape[:-1], -1)


def _sigmoid_layer(inputs, outputs, key):
    """A layer whose sums of sigmoids are about 0 and not small, four times those of Glorot and Bengio 2010."""
    reach = 4 * (6 / (inputs + outputs)) ** 0.5
    kernel = initial(key, (inputs, outputs), reach)
    layer = Linear(inputs, outputs, key=key)
    return eqx.tree_at(lambda layer: (layer.kernel, layer.bias), layer, (kernel, -0.5 * jnp.sum(kernel, axis=0)))
