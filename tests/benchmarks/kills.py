"""Kill a training at random moments, and hold what it comes to against a training that nothing disturbs.

`python tests/benchmarks/kills.py` kills runs of one process and of two, 25 times each; about 15 minutes on two cores.
It prints for each how many steps were done twice, and whether the last state and the log are the same to the bit.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import processes

PROGRAM = """
import sys
import jax.random as jr
import sgm

address, count, index, folder, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
if count > 1:
    sgm.parallel.initialise(address, count, index)
data = sgm.data.Moons()
model = sgm.ScoreModel(sgm.nn.MLP((2,), 64, 2, dropout=0.1, key=jr.key(0)), data=data)
options = {"batch_size": 32, "log_every": 10, "checkpoint_every": 20, "progress": False}
sgm.train(sgm.VP(), model, data, jr.key(1), steps=steps, run=folder, **options)
"""


def start(count: int, folder: Path, steps: int) -> list[subprocess.Popen]:
    """Start the processes of a run."""
    return processes.start(count, ["-c", PROGRAM], folder, steps, stderr=subprocess.DEVNULL)


def lines(folder: Path) -> int:
    """Number of steps in the log."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(running: list[subprocess.Popen]) -> None:
    for process in running:
        process.send_signal(signal.SIGKILL)
    for process in running:
        process.wait()


def killed_run(count: int, folder: Path, steps: int, kills: int, longest: float) -> int:
    """Train to the end through so many kills. Returns the number of steps that were done more than once.

    A kill falls within `longest` seconds of the first step after a start, or, one time in five, before it.
    """
    again = 0
    for _ in range(kills):
        before, running = lines(folder), start(count, folder, steps)
        if random.random() < 0.2:
            time.sleep(random.uniform(0, 5))
        else:
            while lines(folder) in (0, before) and all(process.poll() is None for process in running):
                time.sleep(0.01)
            time.sleep(random.uniform(0, longest))
        if any(process.poll() is not None for process in running):
            kill(running)
            raise RuntimeError(f"a process ended by itself, at step {lines(folder)} of {steps}")
        # One of several is enough: it is the others' business to end.
        kill(running if random.random() < 0.5 else running[-1:])
        kill(running)
        saved = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
        again += lines(folder) - max(saved, default=0)
    finish(start(count, folder, steps))
    return again


def finish(running: list[subprocess.Popen]) -> None:
    if any([process.wait() for process in running]):
        raise RuntimeError("a run ended with an error")


def same(first: Path, second: Path, steps: int) -> bool:
    """Whether two runs have the same last state, to the bit, and the same log."""
    import numpy as np
    import orbax.checkpoint as ocp

    states = []
    for folder in (first, second):
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            states.append(reader.restore((folder / "checkpoints" / str(steps) / "default").absolute()))
    one, other = states
    log = [(folder / "metrics.jsonl").read_text() for folder in (first, second)]
    return log[0] == log[1] and all(np.array_equal(one[name], other[name]) for name in one.keys() | other.keys())


def main(arguments: list[str] | None = None) -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--longest", type=float, default=1.5)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args(arguments)
    alike = True
    print("| processes | kills | steps done again | same state and log |\n|---|---|---|---|")
    for count in given.processes:
        with tempfile.TemporaryDirectory() as folder:
            whole, killed = Path(folder, "whole"), Path(folder, "killed")
            finish(start(count, whole, given.steps))
            again = killed_run(count, killed, given.steps, given.kills, given.longest)
            found = same(whole, killed, given.steps)
        alike &= found
        print(f"| {count} | {given.kills} | {again} of {given.steps} | {'yes' if found else 'NO'} |", flush=True)
    return alike


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
