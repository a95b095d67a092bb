"""A training step with memory that is given back after it, or kept: times, and pages asked of Linux.

    taskset -c 0 python tests/benchmarks/kept_memory.py

Each way is a process of its own, in turn, round by round.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

ROUNDS, STEPS = 2, 12
LARGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
WAYS = {
    "given back": (["steps"], {}),
    "given back, large pages": (["steps"], LARGE),
    "kept": (["steps", "kept"], {}),
    "kept, large pages": (["steps", "kept"], LARGE),
}


def steps(keep):
    """Time, system time and page faults of each step of the UNet of `configs/mnist.py`, and the largest memory."""
    import jax.random as jr

    import sgm

    if keep:
        assert sgm.training.keep_memory()
    data = sgm.data.Arrays(np.random.default_rng(0).standard_normal((256, 28, 28, 1), np.float32))
    network = sgm.nn.UNet(data.shape, width=32, multipliers=(1, 2, 2), blocks=1, key=jr.key(0))
    now = []

    def note(step, metrics, state):
        used = resource.getrusage(resource.RUSAGE_SELF)
        now.append((time.perf_counter(), used.ru_stime, used.ru_minflt))

    model = sgm.ScoreModel(network, data=data)
    how = {"steps": STEPS, "batch_size": 64, "log_every": 1, "callbacks": [note], "progress": False}
    sgm.train(sgm.VP(), model, data, jr.key(1), **how)
    # The first steps compile.
    print(json.dumps([np.diff(now, axis=0)[2:].tolist(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def main():
    found = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as compiled:
        stored = {"JAX_COMPILATION_CACHE_DIR": compiled, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for _ in range(ROUNDS):
            for name, (arguments, tunables) in WAYS.items():
                child = [sys.executable, __file__, *arguments]
                environment = os.environ | stored | tunables
                printed = subprocess.run(child, env=environment, check=True, capture_output=True, text=True).stdout
                found[name].append(json.loads(printed.splitlines()[-1]))
    print("| memory of a step | step, median (s) | ratio | in the kernel (s) | page faults | largest memory (MB) |")
    print("|---|---|---|---|---|---|")
    first = None
    for name, rounds in found.items():
        each = np.concatenate([changes for changes, _ in rounds])
        seconds, (_, kernel, faults) = np.median(each[:, 0]), each.mean(axis=0)
        first = first or seconds
        memory = max(memory for _, memory in rounds)
        print(f"| {name} | {seconds:.2f} | {seconds / first:.2f} | {kernel:.2f} | {faults:,.0f} | {memory:,.0f} |")


if __name__ == "__main__":
    steps("kept" in sys.argv) if sys.argv[1:] else main()
