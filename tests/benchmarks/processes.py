"""Processes of one run on this machine, each with one device, for scripts and tests."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def start(
    count: int,
    program: Sequence[str],
    *arguments: Any,
    flags: str = "",
    only: Iterable[int] | None = None,
    **options: Any,
) -> list[Any]:
    """Start the processes of a run.

    Arguments:
        count: Number of processes.
        program: What Python is to run: a file, or "-c" and a program.
        arguments: What it is given, after the address of the first process, their number and its own index.
        flags: More flags of XLA.
        only: Indices of those that are started, by default all.
        options: Options of `subprocess.Popen`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1 {flags}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, *program, address, str(count), str(index), *map(str, arguments)],
            env=environment,
            **options,
        )
        for index in (range(count) if only is None else only)
    ]
