"""A training step under ways in which glibc has memory, which the environment chooses: times, and pages asked of Linux.

    taskset -c 0 python tests/benchmarks/kept_memory.py

Each way is a process of its own, in turn, round by round. XLA asks for the memory of a step when the step begins and
gives it back at its end, and glibc passes both on to Linux, which fills every page with zeros.
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
KEPT = "glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776"
LARGE = "glibc.malloc.hugetlb=1"
WAYS = {"as it is": "", "large pages": LARGE, "memory kept": KEPT, "both": f"{KEPT}:{LARGE}"}


def steps():
    """Time, system time and page faults of each step of the UNet of `configs/mnist.py`, and the largest memory."""
    import jax.random as jr

    import sgm

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
            for name, tunables in WAYS.items():
                environment = os.environ | stored | {"GLIBC_TUNABLES": tunables}
                child = [sys.executable, __file__, "steps"]
                printed = subprocess.run(child, env=environment, check=True, capture_output=True, text=True).stdout
                found[name].append(json.loads(printed.splitlines()[-1]))
    print("| GLIBC_TUNABLES | step, median (s) | ratio | in the kernel (s) | page faults | largest memory (MB) |")
    print("|---|---|---|---|---|---|")
    first = None
    for name, rounds in found.items():
        each = np.concatenate([changes for changes, _ in rounds])
        seconds, (_, kernel, faults) = np.median(each[:, 0]), each.mean(axis=0)
        first = first or seconds
        memory = max(memory for _, memory in rounds)
        print(f"| {name} | {seconds:.2f} | {seconds / first:.2f} | {kernel:.2f} | {faults:,.0f} | {memory:,.0f} |")


if __name__ == "__main__":
    steps() if sys.argv[1:] else main()
