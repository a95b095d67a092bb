"""Two processes on this machine compute as one. Each test runs programs, since a process joins others once."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from benchmarks import processes

FOLDER = Path(__file__).parents[2]
JOIN = """
import json, os, sys, time
import equinox as eqx, jax, jax.numpy as jnp, jax.random as jr, numpy as np
import sgm

address, count, index, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if count > 1:
    sgm.parallel.initialise(address, count, index)

class Data(sgm.data.Arrays):
    '''Pairs of numbers, with a note of what is read for training.'''

    def take(self, split, index):
        if split == "train":
            seen.append(len(index))
        return super().take(split, index)

seen = []
data = Data(np.random.default_rng(0).normal(size=(400, 2)))
sde = sgm.VP(sgm.sde.LearnedLogSNR())
model = sgm.ScoreModel(sgm.nn.MLP((2,), 32, 1, dropout=0.1, key=jr.key(0)), data=data)
options = {"batch_size": 16, "log_every": 5, "checkpoint_every": 10, "progress": False}
own = options | {"loss": sgm.Loss(times=sgm.training.UniformTime())}  # which a learned schedule is trained on

def weights(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]).tolist()
"""
TRAIN = (
    JOIN
    + """
class Sums(sgm.evaluation.AbstractMetric):
    def columns(self, context, x, fields, key):
        return {"sum": np.asarray(x).sum(1)}

    def rows(self, context, columns):
        return [sgm.evaluation.Row.mean("sum", columns["sum"])]

trained, average, history = sgm.train(sde, model, data, jr.key(3), steps=20, run=folder, **own)
report = sgm.evaluate(trained, average, data, [Sums()], jr.key(4), n=21, batch_size=4, progress=False)
keys = jr.split(jr.key(5), 7)
drawn = sgm.parallel.share(lambda keys: sgm.sample(trained, average, keys, method=sgm.DDIM(5)), keys)
print(json.dumps({
    "processes": jax.process_count(), "devices": jax.device_count(), "read": seen[-3:],
    "loss": history["loss"].tolist(), "held_out": history["held_out_loss"][[9, 19]].tolist(),
    "weights": weights(average), "process": weights(trained),
    "sums": report.columns["sum"].tolist(), "drawn": np.asarray(drawn).tolist(),
}))
"""
)
# Long enough that it is killed in between.
LONG = (
    JOIN
    + """
def slow(step, metrics, state):
    time.sleep(0.05)

try:
    sgm.train(sde, model, data, jr.key(3), steps=2000, run=folder, callbacks=[slow], **own | {"log_every": 1})
except sgm.training.Preempted as error:
    print(error)
"""
)


def start(program, count, folder):
    """The processes of a program."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return processes.start(count, ["-c", program], folder, cwd=FOLDER, **pipes)


def printed(running):
    """The last line of each process, as JSON."""
    with ThreadPoolExecutor() as pool:  # A process whose output nobody reads would stand still.
        outputs = list(pool.map(lambda process: process.communicate(timeout=300), running))
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def wait_for_lines(running, folder, count):
    path = folder / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert all(process.poll() is None for process in running), running[0].communicate()[1][-2000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process and each of two prints, and the folders of their runs."""
    folders = {count: tmp_path_factory.mktemp(f"{count}") for count in (1, 2)}
    started = {count: start(TRAIN, count, folder) for count, folder in folders.items()}
    together = iter(printed([process for running in started.values() for process in running]))
    return {count: [next(together) for _ in running] for count, running in started.items()}, folders


class TestTwoProcesses:
    def test_they_train_as_one_does(self, runs):
        (one,), two = runs[0][1], runs[0][2]
        assert [part["processes"] for part in two] == [2, 2] and one["processes"] == 1
        for part in two:
            scale = np.abs(one["loss"]).max()  # They are sums of terms of this size.
            np.testing.assert_allclose(part["loss"], one["loss"], rtol=0, atol=1e-6 * scale)
            np.testing.assert_allclose(part["held_out"], one["held_out"], rtol=1e-6)
            np.testing.assert_allclose(part["weights"], one["weights"], rtol=0, atol=1e-6)
            np.testing.assert_allclose(part["process"], one["process"], rtol=1e-6)
        assert two[0]["loss"] == two[1]["loss"] and two[0]["weights"] == two[1]["weights"]

    def test_each_reads_its_own_part_of_a_batch(self, runs):
        assert runs[0][1][0]["read"] == [16, 16, 16]
        assert [part["read"] for part in runs[0][2]] == [[8, 8, 8], [8, 8, 8]]

    def test_they_share_an_evaluation_and_both_have_all_of_it(self, runs):
        (one,), two = runs[0][1], runs[0][2]
        assert len(one["sums"]) == 21 and two[0]["sums"] == two[1]["sums"] == one["sums"]

    def test_they_share_draws_and_both_have_all_of_them(self, runs):
        (one,), two = runs[0][1], runs[0][2]
        assert two[0]["drawn"] == two[1]["drawn"]
        np.testing.assert_allclose(two[0]["drawn"], one["drawn"], atol=1e-4)

    def test_one_writes_the_log(self, runs):
        lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in runs[1].values()]
        assert len(lines[0]) == len(lines[1]) == 20

    @pytest.mark.slow
    def test_one_process_goes_on_where_two_ended_and_two_where_one_ended(self, runs, tmp_path):
        """The last ten steps are done by the other number of processes."""
        results, folders = runs
        copies = {count: shutil.copytree(folders[3 - count], tmp_path / f"{count}") for count in (1, 2)}
        for copy in copies.values():
            shutil.rmtree(copy / "checkpoints" / "20")
        one, *two = printed([process for count in (1, 2) for process in start(TRAIN, count, copies[count])])
        for part in (one, *two):
            np.testing.assert_allclose(part["weights"], results[1][0]["weights"], rtol=0, atol=1e-6)
            np.testing.assert_allclose(part["process"], results[1][0]["process"], rtol=1e-6)
        assert [len((copy / "metrics.jsonl").read_text().splitlines()) for copy in copies.values()] == [20, 20]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_other_with_a_clear_line(tmp_path, killed):
    running = start(LONG, 2, tmp_path)
    wait_for_lines(running, tmp_path, 12)
    running[killed].send_signal(signal.SIGKILL)
    _, errors = running[1 - killed].communicate(timeout=120)
    assert running[1 - killed].returncode not in (0, None)
    assert "another process of the run has ended" in errors


# Ten batches. With "stop" each process ends as by a kill in its third.
EVALUATE = (
    JOIN
    + """
done = []

class Sums(sgm.evaluation.AbstractMetric):
    def columns(self, context, x, fields, key):
        if sys.argv[5] == "stop" and len(done) == 2:
            os._exit(9)
        done.append(len(x))
        return {"sum": np.asarray(x).sum(1) + np.asarray(jr.normal(key, (len(x),)))}

    def rows(self, context, columns):
        return [sgm.evaluation.Row.mean("sum", columns["sum"])]

report = sgm.evaluate(sde, model, data, [Sums()], jr.key(4), n=40, batch_size=4, folder=folder, progress=False)
print(json.dumps({"batches": len(done), "sums": report.columns["sum"].tolist()}))
"""
)


def evaluated(count, folder, how):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return processes.start(count, ["-c", EVALUATE], folder, how, cwd=FOLDER, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_an_evaluation_goes_on_with_another_number_of_processes(before, after, tmp_path):
    for process in evaluated(before, tmp_path / "cut", "stop"):
        process.communicate(timeout=150)
        assert process.returncode != 0
    parts = printed(evaluated(after, tmp_path / "cut", "go"))
    (whole,) = printed(evaluated(1, tmp_path / "whole", "go"))
    assert whole["batches"] == 10 and sum(part["batches"] for part in parts) == 10 - 2 * before
    for part in parts:
        assert part["sums"] == whole["sums"]


ALONE = {
    "exit": (
        """
def leave(step, metrics, state):
    if step == 6 and index == 1:
        sys.exit(3)

sgm.train(sde, model, data, jr.key(3), steps=2000, run=folder, callbacks=[leave], **own | {"log_every": 1})
""",
        (1, 1),
        "another process of the run has ended",
    ),
    "killed while shared": (
        """
def of_rows(rows):
    if index == 1:
        os.kill(os.getpid(), 9)
    return np.asarray(rows)

sgm.parallel.share(of_rows, np.arange(8.0))
""",
        (1, -9),
        "share: another process of the run",
    ),
    "folders apart": (
        """
sgm.train(sde, model, data, jr.key(3), steps=20, run=f"{folder}/{index}", **own)
""",
        (1, 1),
        "train: process 1 does not find in run = ",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_what_one_process_does_alone_ends_the_other_with_a_clear_line(name, tmp_path):
    program, codes, line = ALONE[name]
    running = start(JOIN + program, 2, tmp_path)
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=150), running))
    assert line in said[0][1] and tuple(process.returncode for process in running) == codes


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_ends_both(tmp_path):
    running = start(LONG, 2, tmp_path)
    wait_for_lines(running, tmp_path, 12)
    running[1].send_signal(signal.SIGTERM)
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=120)[0], running))
    steps = {line.split("step ")[1].split(" ")[0] for line in said}
    assert len(steps) == 1 and (tmp_path / "checkpoints" / steps.pop()).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "kills"), [(1, 1), (1, 4), (2, 4)])
def test_a_run_that_is_killed_comes_to_the_same_end(processes, kills):
    """The short form of `tests/benchmarks/kills.py`."""
    script = FOLDER / "tests" / "benchmarks" / "kills.py"
    options = ["--kills", str(kills), "--steps", "1000", "--longest", "0.2", "--processes", str(processes)]
    done = subprocess.run([sys.executable, str(script), *options], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].endswith("| yes |"), done.stdout + done.stderr
