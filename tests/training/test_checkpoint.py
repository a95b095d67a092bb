"""What a run leaves on disk, and how it ends when it is asked to."""

import os
import shutil
import signal
import subprocess
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import pytest
from benchmarks import processes

import sgm
from sgm.training import CheckpointError, Preempted, best_step, latest_step, load_run
from sgm.training.checkpoint import Checkpoints, saved_steps

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")
DATA = sgm.data.Moons()


def model():
    return sgm.ScoreModel(sgm.nn.MLP((2,), 16, 1, key=jr.key(0)), data=DATA)


def train(run=None, **options):
    settings = {"steps": 12, "batch_size": 16, "log_every": 4, "checkpoint_every": 2, "progress": False}
    return sgm.train(sgm.VP(), model(), DATA, jr.key(1), run=run, **{**settings, **options})


def weights(model):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))])


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_checkpoints_are_kept(tmp_path, keep):
    train(tmp_path, keep=keep)
    assert saved_steps(tmp_path) == [2, 4, 6, 8, 10, 12][-keep:]


def test_the_best_checkpoints_are_kept_besides(tmp_path):
    """Ascent makes every loss worse than the one before."""
    _, _, history = train(tmp_path, keep=1, keep_best=2, average_decay=0.0, optimiser=optax.scale(1e-2))
    losses = {int(step): loss for step, loss in zip(history["step"], history["held_out_loss"], strict=True)}
    best = sorted((2, 4, 6, 8, 10, 12), key=losses.get)[:2]
    assert 12 not in best and saved_steps(tmp_path) == sorted([12, *best])
    assert best_step(tmp_path) == best[0]


def test_what_is_written_is_the_state_of_its_step_though_training_goes_on(tmp_path):
    """The next step gives up the buffers of the state that is being written."""
    at = {}
    train(tmp_path, keep=6, log_every=2, callbacks=[lambda step, _, state: at.update({step: weights(state.average)})])
    for step in (2, 4, 6, 8, 10, 12):
        np.testing.assert_array_equal(weights(load_run(tmp_path, sgm.VP(), model(), step=step)[1]), at[step])
    with pytest.raises(CheckpointError, match="it has no checkpoint of step 5; it has 2, 4, 6, 8, 10, 12"):
        load_run(tmp_path, sgm.VP(), model(), step=5)


def test_a_callback_that_fails_costs_no_training(tmp_path):
    def fail(step, metrics, state):
        if step == 4:
            raise RuntimeError("no picture")

    with pytest.raises(RuntimeError, match="no picture"):
        train(tmp_path, callbacks=[fail], checkpoint_every=4)
    assert latest_step(tmp_path) == 4


def test_sigterm_saves_and_ends_and_the_run_goes_on(tmp_path):
    def ask(step, metrics, state):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match=r"stopped by SIGTERM; step 5 of 12 is saved in"):
        train(tmp_path, checkpoint_every=100, callbacks=[ask])
    assert latest_step(tmp_path) == 5 and signal.getsignal(signal.SIGTERM) == before
    _, resumed, _ = train(tmp_path, checkpoint_every=100)
    np.testing.assert_array_equal(weights(resumed), weights(train()[1]))


def test_sigterm_after_the_last_step_ends_the_command_too(tmp_path):
    def ask(step, metrics, state):
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted, match=r"stopped by SIGTERM; step 12 of 12 is saved in"):
        train(tmp_path, checkpoint_every=100, callbacks=[ask])
    assert latest_step(tmp_path) == 12


def test_the_step_is_on_disk_before_preemption_says_so(tmp_path, monkeypatch):
    class Noted(Preempted):
        def __init__(self, text):
            super().__init__(text, saved_steps(tmp_path))

    monkeypatch.setattr("sgm.training.loop.Preempted", Noted)
    with pytest.raises(Preempted) as stop:
        train(tmp_path, callbacks=[lambda *_: os.kill(os.getpid(), signal.SIGTERM)], checkpoint_every=100)
    assert stop.value.args[1] == [latest_step(tmp_path)]


def test_a_log_that_is_shorter_than_the_checkpoints_is_taken_as_it_is(tmp_path):
    """As a cut of the power, or a hand, may leave it."""
    train(tmp_path, steps=12, checkpoint_every=4, keep=3)
    log, newest = tmp_path / "metrics.jsonl", tmp_path / "checkpoints" / "12"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:3] + lines[4:6]) + lines[6][:9])
    shutil.rmtree(newest)
    _, resumed, history = train(tmp_path, steps=12, checkpoint_every=4, keep=1, keep_best=2)
    assert history["step"].tolist() == [1, 2, 3, 5, 6, 9, 10, 11, 12]
    assert len(log.read_text().splitlines()) == 9 and saved_steps(tmp_path) == [12]
    np.testing.assert_array_equal(weights(resumed), weights(train(checkpoint_every=4)[1]))


def test_a_reason_that_is_not_the_disk_is_told(tmp_path):
    state = model()
    with pytest.raises(CheckpointError) as stop, Checkpoints(tmp_path, error=lambda step: 1 / 0) as kept:
        kept.save(1, state)
        kept.save(2, state)
    assert "ZeroDivisionError: division by zero" in str(stop.value) and "room" not in str(stop.value)


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    def full(step, metrics, state):
        if step == 4:
            (tmp_path / "metrics.jsonl").unlink()
            (tmp_path / "metrics.jsonl").mkdir()

    with pytest.raises(CheckpointError, match=r"metrics.jsonl: it cannot be written \(Is a directory\)"):
        train(tmp_path, callbacks=[full])
    assert latest_step(tmp_path) == 4


def test_what_a_kill_leaves_half_written_is_cleared_away(tmp_path):
    train(tmp_path)
    half = tmp_path / "checkpoints" / "11.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "data").write_bytes(b"half")
    assert saved_steps(tmp_path) == [10, 12]
    (tmp_path / "fingerprint.json").unlink()
    for step in (10, 12):
        (tmp_path / "checkpoints" / str(step)).rename(tmp_path / f"moved_{step}")
    train(tmp_path)
    assert not half.exists() and saved_steps(tmp_path) == [10, 12]


# No file may grow beyond the limit, as on a disk that is full. The second checkpoint is refused.
FULL = """
import pathlib, resource, signal, sys, time
import jax.random as jr
import sgm

address, count, index, folder, full = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
if count > 1:
    sgm.parallel.initialise(address, count, index)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
data = sgm.data.Moons()
model = sgm.ScoreModel(sgm.nn.MLP((2,), 64, 2, key=jr.key(0)), data=data)

def fill(step, metrics, state):
    if step == 2 and index == full:
        while sgm.training.latest_step(pathlib.Path(folder)) is None:  # The first is written in the background.
            time.sleep(0.05)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))

options = {"steps": 8, "batch_size": 16, "log_every": 2, "checkpoint_every": 2, "progress": False}
try:
    sgm.train(sgm.VP(), model, data, jr.key(1), run=folder, callbacks=[fill], **options)
except sgm.training.CheckpointError as error:
    print(error)
"""


@pytest.mark.slow_except("1-0")
@pytest.mark.parametrize(("count", "full"), [(1, 0), (2, 0), (2, 1)])
def test_a_full_disk_of_one_process_is_told_by_all_and_loses_no_earlier_checkpoint(tmp_path, count, full):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    program = ["-c", textwrap.dedent(FULL)]
    running = processes.start(count, program, tmp_path, full, cwd=Path(__file__).parents[2], **pipes)
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=120), running))
    for output, errors in said:
        assert "it cannot be written (File too large); those of steps 2 are as they were" in output, errors[-3000:]
        assert "Make room on the disk" in output
    assert latest_step(tmp_path) == 2
