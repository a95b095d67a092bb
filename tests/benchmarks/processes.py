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
        options: Options of `subprocess.Popen`; those in `env` are added to this process's environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    one_device = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {flags}", "JAX_PLATFORMS": "cpu"}
    environment = os.environ | one_device | options.pop("env", {})
    return [
        subprocess.Popen(
            [sys.executable, *program, address, str(count), str(index), *map(str, arguments)],
            env=environment,
            **options,
        )
        for index in (range(count) if only is None else only)
    ]


def compilations() -> dict[str, str]:
    """Environment of processes that share the compiled functions of this one."""
    import jax

    return {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(jax.config.jax_compilation_cache_max_size),
    }
