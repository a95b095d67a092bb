"""A linear layer's and an attention's gradients, by JAX's own operations and by `sgm.nn`: the least of some seconds.

    taskset -c 0 python tests/benchmarks/layers.py

The sizes are those of a DiT S/2 of 256 tokens on 8 examples. It also prints the temporary memory of the training step
of the UNet of `networks.py`.
"""

import time

import jax
import jax.numpy as jnp
import jax.random as jr
import networks

import sgm
from sgm.nn.layers import attend
from sgm.nn.product import product
from sgm.training.step import train_step

SECONDS = 3.0


def least(function, *operands):
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*operands))
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        best = min(best, networks.wall(lambda: compiled(*operands)))
    return best


def kernel_gradients(inputs=384, outputs=1536):
    """GFLOP/s of the gradient of a kernel that a vmapped layer has."""
    x, dy = jr.normal(jr.key(0), (8, 256, inputs)), jr.normal(jr.key(1), (8, 256, outputs))
    kernel = jr.normal(jr.key(2), (inputs, outputs))

    def of(multiply):
        def gradient(kernel, x, dy):
            return jax.vjp(lambda kernel: jax.vmap(lambda x: multiply(x, kernel))(x), kernel)[1](dy)[0]

        return 2e-9 * x.size * outputs / least(gradient, kernel, x, dy)

    return of(jnp.matmul), of(product)


def attentions():
    """Milliseconds of an attention of 6 heads of 64 features, forward and gradient."""
    query, key, value, dy = (jr.normal(jr.key(place), (8, 256, 6, 64)) for place in range(4))

    def heads_first(query, key, value):
        return attend(*(part.swapaxes(0, 1) for part in (query, key, value))).swapaxes(0, 1)

    def of(attention):
        def gradient(query, key, value, dy):
            return jax.vjp(jax.vmap(attention), query, key, value)[1](dy)

        return 1e3 * least(gradient, query, key, value, dy)

    return of(jax.nn.dot_product_attention), of(heads_first)


def main():
    networks.table(
        ("gradient", "JAX's", "sgm.nn"),
        ("kernel of 384x1536, GFLOP/s", *kernel_gradients()),
        ("attention, ms", *attentions()),
    )
    network = sgm.nn.UNet(networks.MNIST, 64, (1, 2), 1, key=jr.key(0))
    step = train_step.lower(*networks.training(network, networks.MNIST, 32)).compile().compiled
    print(f"temporary memory of the UNet's step: {step.memory_analysis().temp_size_in_bytes / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
