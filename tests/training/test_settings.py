"""Optimisers and the length of a training."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from sgm.nn.convolution import Convolution
from sgm.nn.stacked import Stacked
from sgm.training import Adam, AdamW, Muon, Training
from sgm.training.settings import warmup_cosine

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_the_learning_rate_rises_and_falls_to_zero():
    rate = warmup_cosine(1e-3, 100, 1000)
    np.testing.assert_allclose([rate(0), rate(50), rate(100), rate(1000)], [0, 5e-4, 1e-3, 0], atol=1e-9)
    assert warmup_cosine(1e-3, 500, 10)(5) == pytest.approx(1e-3)  # At most half of a short run.


@pytest.mark.parametrize("optimiser", [Adam(0.1, warmup=0), AdamW(0.1, warmup=0, weight_decay=0.5)], ids=type)
def test_the_first_step_is_of_the_length_of_the_rate(optimiser):
    rule, weights = optimiser.build(1000), jnp.asarray([1.0, -2.0])
    update, _ = rule.update(jnp.asarray([3.0, -4.0]), rule.init(weights), weights)
    decay = 0.1 * 0.5 * weights if isinstance(optimiser, AdamW) else 0
    np.testing.assert_allclose(update, -0.1 * jnp.asarray([1.0, -1.0]) - decay, rtol=1e-4)


def test_gradients_are_clipped_together():
    rule = Adam(clip=2.0).build(10)
    weights = jnp.zeros(2)
    _, state = rule.update(jnp.asarray([30.0, 40.0]), rule.init(weights), weights)
    np.testing.assert_allclose(optax.tree.get(state, "mu"), 0.1 * jnp.asarray([1.2, 1.6]), rtol=1e-5)


def test_muon_makes_the_singular_values_of_a_step_alike():
    convolution = Convolution(4, 8, 3, key=jr.key(0))
    weights = {"linear": jnp.ones((16, 8)), "stack": jnp.ones((3, 8, 8)), "convolution": convolution}
    gradients = jax.tree.map(lambda part: jr.normal(jr.key(part.size), part.shape), weights)
    rule = Muon(0.1, warmup=0).build(1000)
    update = jax.jit(lambda *parts: rule.update(parts[0], rule.init(parts[1]), parts[1])[0])(gradients, weights)
    kernel = update["convolution"].kernel
    for matrix in (update["linear"], *update["stack"], kernel.reshape(-1, kernel.shape[-1])):
        values = jnp.linalg.svd(matrix / (0.1 * 0.2 * max(matrix.shape) ** 0.5), compute_uv=False)
        assert 0.6 < values.min() < values.max() < 1.3  # Of Gaussian gradients they are from 0.1 to 1.9 of their mean.
    # Of Adam with Nesterov's momentum: the mean of the gradients after the next step, had it the same gradient.
    first = 0.1 * (1 + 0.9 * 0.1 / (1 - 0.9**2))
    np.testing.assert_allclose(update["convolution"].bias, -first * jnp.sign(gradients["convolution"].bias), rtol=1e-4)


def test_muon_takes_the_blocks_of_a_stack_one_by_one():
    blocks = [Convolution(4, 8, 3, key=jr.key(number)) for number in range(3)]
    stacked = Stacked(jax.tree.map(lambda *parts: jnp.stack(parts), *blocks))

    def update(weights):
        gradients = jax.tree.map(lambda part: jnp.sin(100 * part) + part, weights)
        rule = Muon(0.1, warmup=0).unclipped().build(1000)
        return jax.jit(lambda *parts: rule.update(parts[0], rule.init(parts[1]), parts[1])[0])(gradients, weights)

    together = update(stacked).each
    for number, alone in enumerate(update(blocks)):
        np.testing.assert_allclose(together.kernel[number], alone.kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(together.bias[number], alone.bias, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Adam(0.0), "Adam: learning_rate = 0.0; pass learning_rate > 0"),
        (lambda: AdamW(clip=-1.0), "AdamW: clip = -1.0; pass clip > 0"),
        (lambda: AdamW(weight_decay=-0.1), "AdamW: weight_decay = -0.1; pass weight_decay >= 0"),
        (lambda: Muon(weight_decay=-0.1), "Muon: weight_decay = -0.1; pass weight_decay >= 0"),
        (lambda: Adam(warmup=-1), "Adam: warmup = -1; pass warmup >= 0"),
        (lambda: Training(steps=0), "Training: steps = 0; pass steps >= 1"),
        (lambda: Training(average_decay=1.0), "Training: average_decay = 1.0; pass 0 <= average_decay < 1"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
