"""The gradient of a convolution's kernel, by XLA's convolution and by the products of `sgm.nn.convolution`, in GFLOP/s.

    python tests/benchmarks/kernel_gradient.py

Medians of interleaved rounds.
"""

import statistics
import time

import jax
import jax.random as jr

from sgm.nn.convolution import convolve

ROUNDS = 7
SHAPES = ((8, 28, 64), (32, 28, 64), (32, 14, 128), (8, 32, 256))


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def gradient(function):
    return lambda x, kernel, dy: jax.vjp(lambda kernel: function(x, kernel), kernel)[1](dy)[0]


def wall(function, operands):
    start = time.perf_counter()
    jax.block_until_ready(function(*operands))
    return time.perf_counter() - start


def measure(n, side, channels):
    shape = (n, side, side, channels)
    kernel = jr.normal(jr.key(1), (3, 3, channels, channels))
    operands = jr.normal(jr.key(0), shape), kernel, jr.normal(jr.key(2), shape)
    compiled = [jax.jit(gradient(function)) for function in (plain, convolve)]
    for function in compiled:
        wall(function, operands)
    rounds = [[wall(function, operands) for function in compiled] for _ in range(ROUNDS)]
    work = 18 * n * side**2 * channels**2 / 1e9
    return [work / statistics.median(walls) for walls in zip(*rounds, strict=True)]


if __name__ == "__main__":
    print("| images | XLA | products | ratio |\n|---|---|---|---|")
    for n, side, channels in SHAPES:
        xla, products = measure(n, side, channels)
        print(f"| {n} of {side}x{side}x{channels} | {xla:.0f} | {products:.0f} | {products / xla:.2f} |", flush=True)
