"""How long `import sgm` and `sgm --help` take, over the import of jax, equinox, diffrax and optax alone.

Medians of interleaved runs.

python tests/benchmarks/import_time.py
"""

import os
import resource
import statistics
import subprocess
import sys

RUNS = 7
PARTS = "import jax, equinox, diffrax, optax"
PROGRAMS = ("pass", PARTS, "import sgm", "from sgm.cli import main; main(['--help'])")


def seconds(program: str) -> float:
    """Processor time of a fresh interpreter that runs `program`; wall time would measure what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Installed packages have their compiled files, so they are written here too.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    for program in PROGRAMS:
        seconds(program)
    runs = [[seconds(program) for program in PROGRAMS] for _ in range(RUNS)]
    nothing, *times = (statistics.median(times) for times in zip(*runs, strict=True))
    parts, whole, page = (time - nothing for time in times)
    print(f"its parts {parts:.2f} s, sgm {whole:.2f} s, ratio {whole / parts:.2f}")
    print(f"sgm --help {page:.2f} s, ratio {page / parts:.2f}")


if __name__ == "__main__":
    main()
