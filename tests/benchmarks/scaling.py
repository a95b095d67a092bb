"""How the time of a training step grows with the number of devices: measured for two, projected to 1,024.

`python tests/benchmarks/scaling.py` times one process and two, each on a core of its own, and how long they take to add
arrays. The projection is of data parallelism with a fixed batch a device:

    step(n) = compute + 2 (n - 1) (latency + bytes / (n bandwidth))

the time of a ring that adds gradients and does nothing else meanwhile, which is the worst case. Other machines: give
their own constants, such as --compute 0.2 --latency 2e-5 --bandwidth 4e10 --bytes 2.7e9. What is not given is measured.
"""

import argparse
import json
import os
import subprocess
import time
from pathlib import Path

from processes import start

DEVICES = (1, 2, 4, 8, 16, 64, 256, 1024)
BATCH = 16
NAMES = ("compute", "latency", "bandwidth", "bytes")


def measure(address: str, count: int, index: int) -> None:
    """In each process: seconds of a step, and of sums of small and of large arrays; the first prints them."""
    os.sched_setaffinity(0, {index % os.cpu_count()})
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax
    from jax.sharding import NamedSharding, PartitionSpec

    import sgm
    from sgm.parallel.devices import shard
    from sgm.training.step import Recipe, begun, train_step

    if count > 1:
        sgm.parallel.initialise(address, count, index)
    mesh = sgm.parallel.mesh()
    network = sgm.nn.UNet((28, 28, 1), 64, (1, 2), 1, key=jr.key(0))
    model = sgm.ScoreModel(network, shape=(28, 28, 1))
    recipe = Recipe(sgm.VP(), sgm.Loss(), optax.adam(1e-4), jr.key(1))
    state, places = begun(recipe, model, mesh, sgm.parallel.Sharded())
    batch = shard((jr.normal(jr.key(2), (BATCH, 28, 28, 1)), None), mesh)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)))

    def step():
        nonlocal state
        state, metrics = train_step((recipe, batch), state, places)
        jax.block_until_ready(metrics)

    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    whole = NamedSharding(mesh, PartitionSpec())
    total = jax.jit(lambda x: jnp.sum(x, 0), out_shardings=whole)

    def adding(entries):
        local = jnp.zeros((1, entries))
        x = jax.make_array_from_process_local_data(rows, local)
        return lambda: jax.block_until_ready(total(x))

    found = {"compute": best(step, 12), "bytes": size}
    before = cpu_of_threads()
    for _ in range(4):
        step()
    found["threads"] = sorted((now - before.get(thread, 0)) / 4 for thread, now in cpu_of_threads().items())[-2:]
    if count > 1:
        found |= {"small": best(adding(1), 50), "large": best(adding(size // 4), 20)}
    if sgm.parallel.is_first():
        print(json.dumps(found))


def cpu_of_threads() -> dict[str, float]:
    """Seconds for which each thread of this process had a core, by the kernel's own count."""
    threads = Path("/proc/self/task").glob("*/schedstat")
    return {path.parent.name: int(path.read_text().split()[0]) / 1e9 for path in threads}


def best(function, times: int) -> float:
    """The least of so many times, after one that compiles."""
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def run(count: int) -> dict[str, float]:
    flags = "--xla_cpu_multi_thread_eigen=false"
    running = start(count, [__file__, "--process"], flags=flags, stdout=subprocess.PIPE, text=True)
    outputs = [process.communicate()[0] for process in running]
    return json.loads(outputs[0].splitlines()[-1])


def measured() -> dict[str, float]:
    """The constants of this machine, which are printed."""
    one, two = run(1), run(2)
    compute, size = one["compute"], one["bytes"]
    # For two, 2 (n - 1) = 2.
    latency, bandwidth = two["small"] / 2, size / (two["large"] - two["small"])
    print(f"one process {compute:.4f} s a step of batch {BATCH}; gradients {size / 1e6:.1f} MB")
    print(f"a sum of two: {latency * 1e6:.0f} us of latency, {bandwidth / 1e9:.2f} GB/s")
    of_gloo, of_computation = two["threads"]
    print(f"each of two has its core for {of_computation:.2f} s a step of computation, and {of_gloo:.2f} s of gloo")
    print(f"two processes: {two['compute']:.4f} s measured, {compute + two['large']:.4f} s by the model\n")
    return dict(zip(NAMES, (compute, latency, bandwidth, size), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    for name in NAMES:
        parser.add_argument(f"--{name}", type=float)
    given = parser.parse_args()
    if given.process:
        return measure(given.process[0], *map(int, given.process[1:]))
    constants = {name: getattr(given, name) for name in NAMES}
    if None in constants.values():
        found = measured()
        constants = {name: found[name] if value is None else value for name, value in constants.items()}
    compute, latency, bandwidth, size = constants.values()
    print("| devices | step, s | of which sums | efficiency |\n|---|---|---|---|")
    for count in DEVICES:
        sums = 2 * (count - 1) * (latency + size / (count * bandwidth))
        print(f"| {count} | {compute + sums:.4g} | {sums:.2g} | {compute / (compute + sums):.2f} |")


if __name__ == "__main__":
    main()
