"""Small networks that tests share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.nn import MLP, Conditioning, DiT, UNet

LEVEL = jnp.asarray(0.3)
SHAPE = (8, 8, 1)
NETWORKS = {
    "MLP": lambda shape=SHAPE, **options: MLP(shape, 32, 2, key=jr.key(0), **options),
    "UNet": lambda shape=SHAPE, **options: UNet(shape, 8, (1, 2), 1, attention=(8,), key=jr.key(0), **options),
    "DiT": lambda shape=SHAPE, **options: DiT(shape, 32, 3, 2, 2, key=jr.key(0), **options),
}
U = jr.normal(jr.key(1), SHAPE)
EVERYTHING = Conditioning(params=2, classes=3, image=(4, 6, 2), null=True)
COND = sgm.Condition(
    params=jnp.asarray([0.1, -0.4]),
    label=jnp.asarray(1),
    image=jr.normal(jr.key(3), (4, 6, 2)),
    dropped=jnp.asarray(False),
)
"""A condition with all its parts, and what a network is built with for it."""
each_network = pytest.mark.parametrize("name", NETWORKS)


def randomised(network, size=0.2):
    """Zero-initialised layers hide everything behind them."""
    rng = np.random.default_rng(2)  # whose draws need no compilation for each shape

    def moved(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return jnp.asarray(np.asarray(leaf) + size * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(moved, network)


def largest_change(first, second):
    return float(jnp.abs(first - second).max())


call = eqx.filter_jit(lambda network, *arguments, **options: network(*arguments, **options))
predict = eqx.filter_jit(lambda model, *arguments: model.predict(*arguments))
"""A network's call, compiled: one by one, its operations take longer to compile."""
