"""The memory of `sgm.sample` for one batch and for groups, as the growth of the largest resident set.

python tests/benchmarks/sample_memory.py
"""

import subprocess
import sys

PROGRAM = """
import jax, jax.random as jr, resource, sgm
network = sgm.nn.UNet((32, 32, 1), 16, key=jr.key(0))
model = sgm.ScoreModel(network, sgm.model.Velocity(), shape=(32, 32, 1))
size = {size}
x = sgm.sample(sgm.VP(), model, jr.key(1), 1, method=sgm.DDIM(2), batch_size=1).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
x = sgm.sample(sgm.VP(), model, jr.key(1), 2048, method=sgm.DDIM(2), batch_size=size).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""

if __name__ == "__main__":
    print("| batch_size | MiB beyond one example |\n|---|---|")
    for size in (2048, None, 256):
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(size=size)], capture_output=True, text=True, check=True
        )
        name = "none: groups of 2^20 entries" if size is None else size
        print(f"| {name} | {float(result.stdout):.0f} |", flush=True)
