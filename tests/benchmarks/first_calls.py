"""What the first call of `sample` and of `log_prob` takes longer than the second, on eight images of a UNet.

    python tests/benchmarks/first_calls.py

Each is measured in a program of its own, without stored compilations.
"""

import subprocess
import sys
import time

import diffrax
import jax
import jax.random as jr
from networks import MNIST

import sgm

N = 8


def sample(sde, model):
    return sgm.sample(sde, model, jr.key(0), N, method=sgm.DDIM(10))


def log_prob(sde, model):
    x, controller = jr.normal(jr.key(1), (N, *MNIST)), diffrax.PIDController(rtol=1e-2, atol=1e-2)
    return sgm.log_prob(sde, model, x, jr.key(0), trace=sgm.Hutchinson(1), controller=controller)


def measure(function):
    model = sgm.ScoreModel(sgm.nn.UNet(MNIST, 64, (1, 2), 1, key=jr.key(0)), shape=MNIST)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(function(sgm.VP(), model))
        times.append(time.perf_counter() - start)
    print(
        f"{function.__name__}: first {times[0]:.1f} s, second {times[1]:.1f} s, difference {times[0] - times[1]:.1f} s"
    )


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    if sys.argv[1:]:
        measure({"sample": sample, "log_prob": log_prob}[sys.argv[1]])
    else:
        for name in ("sample", "log_prob"):
            subprocess.run([sys.executable, __file__, name], check=True)
