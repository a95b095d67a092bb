"""How long the first calls of a program take where JAX keeps what it compiled before, over where it does not.

python tests/benchmarks/stored_compilations.py
"""

import os
import statistics
import subprocess
import sys
import tempfile

RUNS = 3
PROGRAM = """
import time, jax.random as jr, sgm
network = sgm.nn.UNet((16, 16, 1), 16, multipliers=(1, 2), blocks=1, key=jr.key(0))
model = sgm.ScoreModel(network, shape=(16, 16, 1))
start = time.perf_counter()
x = sgm.sample(sgm.VP(), model, jr.key(1), 4, method=sgm.EulerMaruyama(4))
sgm.sample(sgm.VP(), model, jr.key(1), 4, method=sgm.ProbabilityFlow())
sgm.log_prob(sgm.VP(), model, x, jr.key(2), trace=sgm.Hutchinson()).block_until_ready()
print(time.perf_counter() - start)
"""


def seconds(cache: str) -> float:
    """Wall time of a fresh interpreter's first calls, with compiled functions stored in the folder `cache`."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    printed = subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment, capture_output=True)
    return float(printed.stdout)


def main() -> None:
    runs = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as cache:
            runs.append((seconds(cache), seconds(cache)))
    first, later = (statistics.median(times) for times in zip(*runs, strict=True))
    print(f"first program {first:.1f} s, later ones {later:.1f} s, ratio {later / first:.2f}")


if __name__ == "__main__":
    main()
