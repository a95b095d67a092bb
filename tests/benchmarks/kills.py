"""Kill a training at random moments, and hold what it comes to against a training that nothing disturbs.

`python tests/benchmarks/kills.py` kills runs of one process and of two, 25 times each; about 15 minutes on two cores.
It prints for each when the kills fell, how many steps were done twice, and whether the last state and the log are the
same to the bit.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
WHEN = ("within 5 s of a start", "between saves", "in a save")


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


def saved(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def is_writing(folder: Path) -> bool:
    """Whether a checkpoint is half written."""
    return any((folder / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def wait_for(running: list[subprocess.Popen], folder: Path, is_so: Callable[[], bool]) -> None:
    """Wait, two minutes at most, while the processes run."""
    began = time.monotonic()
    while not is_so():
        if any(process.poll() is not None for process in running) or time.monotonic() - began > 120:
            kill(running)
            raise RuntimeError(f"a process ended by itself, or nothing happens, at step {lines(folder)}")
        time.sleep(0.001)


def killed_run(count: int, folder: Path, steps: int, kills: int, longest: float) -> tuple[int, Counter[str]]:
    """Train to the end through so many kills. Returns the number of steps that were done again, and when kills fell.

    One in six falls within 5 seconds of a start, on all processes. The others fall after the first new step: half of
    them within `longest` seconds, half in the middle of a save; on all processes, or on one, and the others then end by
    themselves.
    """
    again, fell = 0, Counter()
    for _ in range(kills):
        kind, before = random.random(), saved(folder)
        running = start(count, folder, steps)
        if kind < 1 / 6:
            time.sleep(random.uniform(0, 5))
        else:
            wait_for(running, folder, lambda before=before: lines(folder) == before)  # The log is cut back at a start.
            wait_for(running, folder, lambda before=before: lines(folder) > before)
            if kind < 7 / 12:
                time.sleep(random.uniform(0, longest))
            else:
                wait_for(running, folder, lambda: is_writing(folder))
        if any(process.poll() is not None for process in running):
            kill(running)
            raise RuntimeError(f"a process ended by itself, at step {lines(folder)} of {steps}")
        fell[WHEN[0] if kind < 1 / 6 else WHEN[2] if is_writing(folder) else WHEN[1]] += 1
        if kind > 1 / 6 and random.random() < 0.5:
            kill([running.pop(random.randrange(count))])
            wait_for([], folder, lambda running=running: all(process.poll() is not None for process in running))
        kill(running)
        again += max(0, lines(folder) - saved(folder))
    finish(start(count, folder, steps))
    return again, fell


def finish(running: list[subprocess.Popen]) -> None:
    if any([process.wait() for process in running]):
        raise RuntimeError("a run ended with an error")


def state(folder: Path, steps: int) -> dict[str, Any]:
    """The state of a step, as arrays of this process, however many processes wrote it."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    place = (folder / "checkpoints" / str(steps) / "default").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(place).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(place, ocp.args.PyTreeRestore(restore_args=as_numpy))


def same(first: Path, second: Path, steps: int) -> bool:
    """Whether two runs have the same last state, to the bit, and the same log."""
    import numpy as np

    one, other = state(first, steps), state(second, steps)
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
    print(f"| processes | {' | '.join(f'kills {when}' for when in WHEN)} | steps done again | same state and log |")
    print("|---|---|---|---|---|---|")
    for count in given.processes:
        with tempfile.TemporaryDirectory() as folder:
            whole, killed = Path(folder, "whole"), Path(folder, "killed")
            finish(start(count, whole, given.steps))
            again, fell = killed_run(count, killed, given.steps, given.kills, given.longest)
            found = same(whole, killed, given.steps)
        alike &= found
        when = " | ".join(str(fell[name]) for name in WHEN)
        print(f"| {count} | {when} | {again} of {given.steps} | {'yes' if found else 'NO'} |", flush=True)
    return alike


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
