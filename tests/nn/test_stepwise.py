import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import call, randomised

from sgm.nn import Conditioning, StepwisePerceptron
from sgm.sde import BinomialChain, HarmonicBetas


def test_each_step_of_a_harmonic_chain_has_a_readout_of_its_own():
    network = randomised(StepwisePerceptron((3,), 4, 1, readouts=100, key=jr.key(0)), 1.0)
    levels = jnp.asarray(BinomialChain(HarmonicBetas(100)).every_step.level)
    u, own = jnp.asarray([1.0, -1.0, 1.0]), jnp.arange(100.0)[:, None] * jnp.ones(3)
    marked = eqx.tree_at(lambda network: network.biases[-1], network, network.biases[-1] + own)
    outputs = eqx.filter_jit(lambda network: jax.vmap(lambda level: network(level, u))(levels))
    np.testing.assert_allclose(outputs(marked) - outputs(network), own, rtol=1e-5, atol=1e-5)


def test_it_is_layers_of_sigmoids_and_a_linear_readout():
    network = randomised(StepwisePerceptron((2, 1), 4, 2, readouts=9, outputs=2, key=jr.key(0)), 1.0)
    assert network.parts == (1, 8, 9)
    hidden = np.asarray([0.3, -1.0])
    for layer in network.layers:
        hidden = 1 / (1 + np.exp(-(hidden @ np.asarray(layer.kernel) + np.asarray(layer.bias))))
    place = 4  # sin^2 is 1/2 at level 0, and 4.5 is rounded to the even 4.
    shares = [(place - 1) * parts // 9 for parts in network.parts]
    kernel = sum(np.asarray(kernels[share]) for kernels, share in zip(network.kernels, shares, strict=True))
    bias = sum(np.asarray(biases[share]) for biases, share in zip(network.biases, shares, strict=True))
    found = call(network, jnp.asarray(0.0), jnp.asarray([[0.3], [-1.0]]))
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found.reshape(-1), hidden @ kernel + bias, rtol=1e-4)


def test_it_begins_at_zero_with_sums_that_are_not_small():
    network = StepwisePerceptron((20,), key=jr.key(0))
    u = jr.rademacher(jr.key(1), (200, 20), jnp.float32)
    assert float(jnp.abs(jax.jit(jax.vmap(lambda u: network(jnp.asarray(1.0), u)))(u)).max()) == 0
    hidden = u
    for layer in network.layers:
        sums = layer(hidden)
        assert 0.3 < float(jnp.std(sums, axis=0).mean()) < 5
        hidden = jax.nn.sigmoid(sums)


def test_it_takes_no_condition():
    with pytest.raises(ValueError, match="StepwisePerceptron: it takes no condition, but is to be given label; pass"):
        StepwisePerceptron((20,), conditioning=Conditioning(classes=3), key=jr.key(0))
