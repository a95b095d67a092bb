"""How long networks take to be built, and with initial values by `jax.random.uniform` of each shape.

Medians of interleaved runs, each in a program of its own. Then how long the compilation of noise takes, of images of a
batch, by `jax.random.normal` and by `sgm.random.normal`.

python tests/benchmarks/build_time.py
"""

import statistics
import time

import jax
import jax.random as jr
import numpy as np
from import_time import seconds
from networks import table

from sgm.random import normal

RUNS = 3
BEGIN = "import jax, sgm; key = jax.random.key(0); jax.random.split(key); "
PLAIN = """
import sgm.interop.diffusers.dit_blocks, sgm.nn.conditioning, sgm.nn.convolution, sgm.nn.layers

def initial(key, shape, reach):
    return jax.random.uniform(key, shape, minval=-reach, maxval=reach)

for module in (sgm.interop.diffusers.dit_blocks, sgm.nn.conditioning, sgm.nn.convolution, sgm.nn.layers):
    assert module.initial
    module.initial = initial
"""
NETWORKS = {
    "MLP of digits": "sgm.nn.MLP((8, 8, 1), 256, 4, key=key)",
    "UNet of MNIST, 1.35M": "sgm.nn.UNet((28, 28, 1), 32, (1, 2, 2), 1, key=key)",
    "UNet, width 128, 4 levels": "sgm.nn.UNet((32, 32, 3), 128, (1, 2, 2, 2), 2, attention=(16,), key=key)",
    "DiT-S/2": "sgm.nn.DiT((32, 32, 3), 384, 12, 6, 2, key=key)",
}


def compile_time(normal) -> float:
    """Processor time of the compilation of noise of eight images."""
    draw = jax.jit(jax.vmap(lambda key: normal(key, (32, 32, 3))))
    lowered, before = draw.lower(jr.split(jr.key(0), 8)), time.process_time()
    lowered.compile()
    return time.process_time() - before


def main() -> None:
    rows = []
    for name, network in NETWORKS.items():
        programs = BEGIN, BEGIN + network, BEGIN + PLAIN + network
        runs = [[seconds(program) for program in programs] for _ in range(RUNS)]
        nothing, ours, plain = (statistics.median(times) for times in zip(*runs, strict=True))
        rows.append(
            (name, f"{ours - nothing:.2f}", f"{plain - nothing:.2f}", f"{(ours - nothing) / (plain - nothing):.2f}")
        )
    table(("network", "seconds", "by `jax.random.uniform`", "ratio"), *rows)
    draws = (jr.normal, normal)
    plain, ours = np.median([[compile_time(draw) for draw in draws] for _ in range(RUNS)], axis=0)
    print(f"noise of (32, 32, 3): by jax.random {plain:.2f} s, by sgm.random {ours:.2f} s, ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
