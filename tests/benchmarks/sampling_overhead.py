"""What a sampler costs beyond its network: wall(sample) / (evaluations x wall(one jitted, batched network call)).

    python tests/benchmarks/sampling_overhead.py

`loop` is the same network called as often inside a bare `lax.fori_loop`, with nothing else: what of the ratio is XLA's,
since on the CPU convolutions lose part of their speed inside loops (https://github.com/jax-ml/jax/issues/12868).
All are timed in turn, `REPEATS` times, and the medians compared.
"""

import functools
import statistics
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import sgm
from sgm.solve import FixedSteps

REPEATS = 5


def wall(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


@eqx.filter_jit
def call(network, u, level):
    return jax.vmap(lambda u: network(level, u, None))(u)


@eqx.filter_jit
def loop(network, u, level, steps):
    # The level changes with the step, so that nothing can be hoisted out.
    return jax.lax.fori_loop(0, steps, lambda i, u: u + 1e-3 * call(network, u, level + 1e-3 * i), u)


def measure(name, network, shape, batch, steps):
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))
    model = sgm.ScoreModel(network, shape=shape)
    u, level = jr.normal(jr.key(1), (batch, *shape)), jnp.asarray(0.3)
    methods = {
        "EulerMaruyama": (sgm.EulerMaruyama(steps), 1),
        "ProbabilityFlow": (sgm.ProbabilityFlow(diffrax.Euler(), FixedSteps(steps)), 1),
        "Ancestral": (sgm.Ancestral(steps), 1),
        "DDIM": (sgm.DDIM(steps), 1),
        "DPMSolverPP, order 3": (sgm.DPMSolverPP(steps, 3), 1),
        "SDEDPMSolverPP": (sgm.SDEDPMSolverPP(steps), 1),
        "SingleDPMSolverPP, order 2": (sgm.SingleDPMSolverPP(steps // 2), 2),
        "EDMHeun": (sgm.EDMHeun(steps // 2), 2),
        "PredictorCorrector": (sgm.PredictorCorrector(steps // 2), 2),
    }
    timed = {
        "network": lambda: [call(network, u, level) for _ in range(steps)],
        "loop": lambda: loop(network, u, level, steps),
    }
    for label, (method, _) in methods.items():
        timed[label] = functools.partial(sgm.sample, sgm.VP(), model, jr.key(2), batch, method=method)
    first = {label: wall(function) for label, function in timed.items()}
    rounds = [{label: wall(function) for label, function in timed.items()} for _ in range(REPEATS)]
    median = {label: statistics.median(walls[label] for walls in rounds) for label in timed}
    one = median["network"] / steps
    print(f"\n{name}: {size / 1e6:.2f}M parameters, one call {1e3 * one:.2f} ms\n")
    print("| | evaluations | wall (s) | ratio | first call (s) |\n|---|---|---|---|---|")
    # A sampler ends with the evaluation that denoises.
    evaluations = {"loop": steps} | {
        label: method.stepping.steps * each + 1 for label, (method, each) in methods.items()
    }
    for label, count in evaluations.items():
        ratio = median[label] / (count * one)
        print(f"| {label} | {count} | {median[label]:.3f} | {ratio:.2f} | {first[label]:.1f} |", flush=True)


if __name__ == "__main__":
    measure("MLP, batch 1024, 200 steps", sgm.nn.MLP((64,), 256, 4, key=jr.key(0)), (64,), 1024, 200)
    unet = sgm.nn.UNet((28, 28, 1), 64, (1, 2), 1, key=jr.key(0))
    measure("UNet, batch 8, 28x28x1, 50 steps", unet, (28, 28, 1), 8, 50)
