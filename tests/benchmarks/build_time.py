"""How long networks take to be built, and with initial values by `jax.random.uniform` of each shape.

Medians of interleaved runs, each in a program of its own.

python tests/benchmarks/build_time.py
"""

import statistics

from import_time import seconds
from networks import table

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


if __name__ == "__main__":
    main()
