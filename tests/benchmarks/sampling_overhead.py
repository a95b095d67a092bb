"""What a sampler costs beyond its network: wall(sample) / (evaluations x wall(one jitted, batched network call)).

    python tests/benchmarks/sampling_overhead.py

`loop` is the same network called as often inside a bare `lax.fori_loop`, with nothing else: what of the ratio is XLA's,
since on the CPU convolutions lose part of their speed inside loops (https://github.com/jax-ml/jax/issues/12868).
All are timed in turn, `REPEATS` times, and the medians compared.
"""

import statistics
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import sgm
from sgm.solve import FixedSteps

REPEATS = 7
CASES = {
    "MLP, batch 1024, 200 steps": (lambda: sgm.nn.MLP((64,), 256, 4, key=jr.key(0)), (64,), 1024, 200),
    "UNet, batch 8, 28x28x1, 50 steps": (
        lambda: sgm.nn.UNet((28, 28, 1), 64, (1, 2), 1, key=jr.key(0)),
        (28, 28, 1),
        8,
        50,
    ),
}


def wall(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def main():
    for name, (build, shape, batch, steps) in CASES.items():
        network = build()
        size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
        model = sgm.ScoreModel(network, shape=shape)
        u, level = jr.normal(jr.key(1), (batch, *shape)), jnp.asarray(0.3)

        @eqx.filter_jit
        def call(network, u, level):
            return jax.vmap(lambda u: network(level, u, None))(u)

        @eqx.filter_jit
        def loop(network, u, level, steps=steps):
            # The level changes with the step, so that nothing can be hoisted out.
            return jax.lax.fori_loop(0, steps, lambda i, u: u + 1e-3 * call(network, u, level + 1e-3 * i), u)

        euler_flow = sgm.ProbabilityFlow(diffrax.Euler(), FixedSteps(steps))
        timed = {
            "network": lambda: [call(network, u, level) for _ in range(steps)],
            "loop": lambda: loop(network, u, level),
            "EulerMaruyama": lambda: sgm.sample(sgm.VP(), model, jr.key(2), batch, method=sgm.EulerMaruyama(steps)),
            "ProbabilityFlow": lambda: sgm.sample(sgm.VP(), model, jr.key(2), batch, method=euler_flow),
        }
        compile_walls = {label: wall(function) for label, function in timed.items()}
        walls = {label: [] for label in timed}
        for _ in range(REPEATS):
            for label, function in timed.items():
                walls[label].append(wall(function))
        medians = {label: statistics.median(values) for label, values in walls.items()}
        one = medians["network"] / steps
        print(f"\n{name}: {size / 1e6:.2f}M parameters, one call {1e3 * one:.2f} ms")
        print(f"| {'':16} | evaluations | wall (s) | ratio | first call (s) |")
        for label, evaluations in (("loop", steps), ("EulerMaruyama", steps + 1), ("ProbabilityFlow", steps + 1)):
            ratio = medians[label] / (evaluations * one)
            print(
                f"| {label:16} | {evaluations:11} | {medians[label]:8.3f} | {ratio:5.2f} | {compile_walls[label]:14.1f} |"
            )


if __name__ == "__main__":
    main()
