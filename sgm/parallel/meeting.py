"""How the processes of a run meet, and how they part."""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import jax
from jax._src import distributed  # JAX has no public name for its client, by which processes speak without devices.

from sgm.checks import check_count
from sgm.parallel.processes import ProcessLost, wait_for_all

# Seconds for which a process waits at its end for the others: after its work, and after an error.
_LONG, _SHORT = 7 * 24 * 3600, 10
_left = threading.Event()


def initialise(
    coordinator: str | None = None, processes: int | None = None, index: int | None = None, *, timeout: float = 300.0
) -> None:
    """Join the processes of a run. To be called in each, before anything is computed.

    Slurm, Kubernetes, Open MPI and TPU pods say what is left out. Processes on the CPU speak by gloo. At its end a
    process waits for the others, but after an error it does not.

    Arguments:
        coordinator: Address of the first process, as "10.0.0.1:1234", with a free port.
        processes: Number of processes.
        index: Number of this process, from 0.
        timeout: Time for which the processes wait for each other, in seconds.

    Raises:
        TypeError: for a number that is not whole.
        ValueError: for an address without a port, and numbers that do not fit each other; and where something is left
            out, and nothing says it.
        ProcessLost: where the processes do not meet in time, or were told of other numbers of processes.
        RuntimeError: where JAX has already computed, or has joined others.

    Example:
        >>> sgm.parallel.initialise()  # each task of `srun python train.py`
    """
    _check(coordinator, processes, index)
    deadline = time.monotonic() + timeout
    if coordinator is not None:
        of = "the other processes" if processes is None else f"{processes} processes"
        print(f"initialise: waiting for {of} at {coordinator}, at most {timeout:g} s", file=sys.stderr, flush=True)
        if index:
            _wait_for_socket(coordinator, index, timeout)
    # Otherwise JAX takes SIGTERM for itself, also outside of training.
    jax.config.update("jax_enable_preemption_service", False)
    _meet(coordinator, processes, index, timeout, deadline)
    atexit.register(_part)
    _leave_after_errors()
    _check_counts()
    wait_for_all("initialise")  # What devices need to speak to each other is made while all of them are here.


def leave_at_once() -> None:
    """Say that this process fails: at its end it does not wait for others, which cannot go on without it."""
    _left.set()


def _check(coordinator, processes, index):
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise ValueError(
                f"initialise: coordinator = {coordinator!r}; pass the address of the first process with a free port, "
                'such as "10.0.0.1:1234".'
            )
    if processes is not None:
        check_count("initialise", "processes", processes)
    if index is not None:
        check_count("initialise", "index", index, 0)
        if processes is not None and index >= processes:
            raise ValueError(
                f"initialise: index = {index} of processes = {processes}; pass each process its own index, from 0 to "
                f"{processes - 1}."
            )


def _wait_for_socket(coordinator, index, timeout):
    """Wait until the first process listens. JAX would abort the process where it never does."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + timeout
    while True:
        try:
            left = max(0.1, deadline - time.monotonic())
            socket.create_connection((host.strip("[]"), int(port)), timeout=min(5.0, left)).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ProcessLost(
                    f"initialise: process {index} has found nobody at {coordinator} for {timeout:g} s ({error}); start "
                    "the process of index 0 on the machine of that address, and pass all of them the same address."
                ) from None
            time.sleep(0.2)


def _meet(coordinator, processes, index, timeout, deadline):
    """Join the others, in a thread: JAX aborts a process that waits in vain."""
    found: list[Exception] = []

    def join():
        try:
            jax.distributed.initialize(
                coordinator,
                processes,
                index,
                initialization_timeout=_LONG if coordinator is not None else int(timeout),
                heartbeat_timeout_seconds=60,
                shutdown_timeout_seconds=30,
            )
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=join, name="initialise", daemon=True)
    thread.start()
    thread.join(max(1.0, deadline - time.monotonic()) if coordinator is not None else None)
    if thread.is_alive():
        leave_at_once()
        atexit.register(_end)  # What JAX has begun cannot be ended in order.
        raise ProcessLost(
            f"initialise: the processes have not met at {coordinator} within {timeout:g} s; start all "
            f"{'of them' if processes is None else processes} with this address and number, each with its own index."
        )
    for error in found:
        if isinstance(error, ValueError):
            raise ValueError(
                f"initialise: no cluster is found ({error}); pass the coordinator's address, the number of processes "
                'and the index of this one, as ("10.0.0.1:1234", 4, 0).'
            ) from None
        raise error


def _check_counts():
    """Raise unless all processes were told of the same number of them."""
    client: Any = distributed.global_state.client
    count, index = distributed.global_state.num_processes, distributed.global_state.process_id
    client.key_value_set(f"sgm/count/{index}", str(count))
    client.wait_at_barrier("sgm: counts", _SHORT * 1000)
    for name, theirs in client.key_value_dir_get("sgm/count/"):
        if int(theirs) != count:
            raise ProcessLost(
                f"initialise: process {name.rpartition('/')[2]} was told of {theirs} processes, process {index} of "
                f"{count}; pass all of them the same number."
            )


def _leave_after_errors():
    """Hear of errors that nothing catches, and of `sys.exit` with one, of which no hook of Python is told."""
    show, leave = sys.excepthook, sys.exit

    def hook(kind, error, trace):
        leave_at_once()
        show(kind, error, trace)

    def leaving(status=None):
        if status not in (None, 0):
            leave_at_once()
        leave(status)

    sys.excepthook, sys.exit = hook, leaving


def _part():
    """Wait for the others at the end of this process, before JAX does, which would abort those that are early."""
    client: Any = distributed.global_state.client
    if client is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        client.wait_at_barrier("sgm: the end", 1000 * (_SHORT if _left.is_set() else _LONG))
    except jax.errors.JaxRuntimeError:
        if not _left.is_set():
            print("sgm: another process of the run has failed", file=sys.stderr)
        _end()


def _end():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
