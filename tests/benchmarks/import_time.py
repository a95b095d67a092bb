"""How long `import sgm` takes, over the import of jax, equinox, diffrax and optax alone: medians of interleaved runs.

python tests/benchmarks/import_time.py
"""

import os
import resource
import statistics
import subprocess
import sys

RUNS = 7
PROGRAMS = ("pass", "import jax, equinox, diffrax, optax", "import sgm")


def seconds(program: str) -> float:
    """Processor time of a fresh interpreter that runs `program`; wall time would measure what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Installed packages have their compiled files, so they are written here too.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    for program in PROGRAMS:
        seconds(program)
    runs = [[seconds(program) for program in PROGRAMS] for _ in range(RUNS)]
    nothing, parts, whole = (statistics.median(times) for times in zip(*runs, strict=True))
    parts, whole = parts - nothing, whole - nothing
    print(f"its parts {parts:.2f} s, sgm {whole:.2f} s, ratio {whole / parts:.2f}")


if __name__ == "__main__":
    main()
