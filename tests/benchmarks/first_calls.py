"""What the first call of `sample` and of `log_prob` takes longer than the second, on eight images of a UNet.

    python tests/benchmarks/first_calls.py

Each is measured in a program of its own, without stored compilations. Beside them stand the network alone and with
its derivative. Tracing, lowering and compiling are the sums of JAX's own events of the first call.
"""

import subprocess
import sys
import time

import diffrax
import equinox as eqx
import jax
import jax.random as jr
from networks import MNIST

import sgm

N = 8
PHASES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}


@eqx.filter_jit
def network(sde, model, x):
    return jax.vmap(lambda one: model.denoise(sde, 0.5, one))(x)


@eqx.filter_jit
def derivative(sde, model, x):
    return jax.jvp(lambda x: network(sde, model, x), (x,), (x,))


def sample(sde, model, x):
    return sgm.sample(sde, model, jr.key(0), N, method=sgm.DDIM(10))


def log_prob(sde, model, x):
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)
    return sgm.log_prob(sde, model, x, jr.key(0), trace=sgm.Hutchinson(1), controller=controller)


CALLS = {call.__name__: call for call in (sample, log_prob, network, derivative)}


def measure(name):
    model = sgm.ScoreModel(sgm.nn.UNet(MNIST, 64, (1, 2), 1, key=jr.key(0)), shape=MNIST)
    x = jr.normal(jr.key(1), (N, *MNIST))
    parts = dict.fromkeys(PHASES.values(), 0.0)

    def add(event, seconds, **_):
        if event in PHASES:
            parts[PHASES[event]] += seconds

    jax.monitoring.register_event_duration_secs_listener(add)
    first, times = {}, []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(CALLS[name](sgm.VP(), model, x))
        times.append(time.perf_counter() - start)
        first = first or dict(parts)
    of = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in first.items())
    print(f"{name}: first {times[0]:.1f} s, second {times[1]:.1f} s, difference {times[0] - times[1]:.1f} s: {of}")


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    if sys.argv[1:]:
        measure(sys.argv[1])
    else:
        for name in CALLS:
            subprocess.run([sys.executable, __file__, name], check=True)
