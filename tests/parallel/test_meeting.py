"""How processes meet, and how they part. Each test runs programs, since a process joins others once."""

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from benchmarks import processes

import sgm

FOLDER = Path(__file__).parents[2]
JOIN = """
import os, signal, sys, time
import jax, jax.random as jr, numpy as np
import sgm

address, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sgm.parallel.initialise(address, count, index, timeout=float(sys.argv[4]))
"""
TRAIN = (
    JOIN
    + """
data = sgm.data.Moons()
model = sgm.ScoreModel(sgm.nn.MLP((2,), 8, 1, key=jr.key(0)), data=data)

def act(step, metrics, state):
    if step == 4 and index == 1:
        {}

sgm.train(sgm.VP(), model, data, jr.key(1), steps=2000, batch_size=16, log_every=2, progress=False, callbacks=[act])
"""
)


def ends(program, count, seconds=60.0, only=None):
    """The exit status, the errors and the duration in seconds of each process."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = processes.start(count, ["-c", program], seconds, cwd=FOLDER, only=only, **pipes)
    began = time.monotonic()

    def end(process):
        errors = process.communicate(timeout=150)[1]
        return process.returncode, errors, time.monotonic() - began

    with ThreadPoolExecutor() as pool:
        return list(pool.map(end, running))


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("127.0.0.1", 2, 0), r"coordinator = '127.0.0.1'; pass the address of the first process with a free port"),
        ((":1234", 2, 0), r"coordinator = ':1234'; pass the address"),
        (("127.0.0.1:high", 2, 0), r"coordinator = '127.0.0.1:high'; pass the address"),
        (("127.0.0.1:1234", 0, 0), r"processes = 0; pass processes >= 1"),
        (("127.0.0.1:1234", 2, -1), r"index = -1; pass index >= 0"),
        (("127.0.0.1:1234", 2, 2), r"index = 2 of processes = 2; pass each process its own index, from 0 to 1"),
    ],
)
def test_wrong_addresses_and_numbers_are_told(given, message):
    with pytest.raises(ValueError, match=f"^initialise: {message}"):
        sgm.parallel.initialise(*given)


def test_a_process_that_finds_nobody_says_where(capsys):
    address = free_address()
    with pytest.raises(sgm.parallel.ProcessLost, match=f"process 1 has found nobody at {address} for 1 s"):
        sgm.parallel.initialise(address, 2, 1, timeout=1)
    assert f"initialise: waiting for 2 processes at {address}, at most 1 s" in capsys.readouterr().err


def test_the_first_process_says_that_the_others_have_not_come():
    ((status, errors, _),) = ends(JOIN, 2, 1.0, only=[0])
    assert status == 1 and "ProcessLost: initialise: the processes have not met at" in errors


def test_sigterm_outside_of_training_ends_the_process():
    ((status, _, _),) = ends(JOIN + "os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)", 1)
    assert status == -signal.SIGTERM


@pytest.mark.slow
def test_processes_that_were_told_of_other_numbers_say_so():
    program = JOIN.replace("count, index,", "count + (index == 1), index,")
    for status, errors, _ in ends(program, 2):
        assert status == 1 and "ProcessLost: initialise: process" in errors and "pass all of them the same" in errors


@pytest.mark.slow
def test_processes_wait_for_those_that_are_late():
    """Longer than the 30 s after which gloo gives up a first computation, and after which JAX gives up an end."""
    program = JOIN + "time.sleep(35 * index); assert list(sgm.parallel.share(np.exp, np.zeros(3))) == [1, 1, 1]"
    for status, errors, seconds in ends(program + "; time.sleep(35 * (1 - index))", 2):
        assert status == 0 and seconds > 70, errors[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "status"), [("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM), ("raise OSError('no disk')", 1)]
)
def test_one_that_ends_early_ends_the_other_with_a_clear_line(act, status):
    (first, lost, _), (second, errors, _) = ends(TRAIN.replace("{}", act), 2)
    assert second == status and first not in (0, None), (second, first, errors[-2000:])
    assert "another process of the run has ended" in lost


@pytest.mark.slow
def test_an_error_of_all_processes_is_told_by_each():
    for status, errors, _ in ends(JOIN + "raise OSError('no disk')", 2):
        assert status == 1 and errors.rstrip().endswith("OSError: no disk")


def test_a_command_of_no_cluster_ends_with_one_line():
    command = [sys.executable, "-m", "sgm", "--distributed"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("sgm: initialise: no cluster is found")
