"""Memory that a process keeps is not asked of Linux again."""

import inspect
import platform
import subprocess
import sys

import pytest

import sgm

PAGES = """
import resource
import runpy
import sys

import jax
import jax.numpy as jnp

if sys.argv[1:]:
    assert runpy.run_path(sys.argv[1])["keep_memory"]()
step = jax.jit(lambda x: x[::-1] + 1)  # 40 MB, 10,000 pages
x = jnp.ones(10_000_000)
for _ in range(30):  # in which the heap grows to what the steps take
    x = jax.block_until_ready(step(x))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    x = jax.block_until_ready(step(x))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_steps_ask_linux_for_their_memory_once():
    def pages(*path):
        command = [sys.executable, "-c", PAGES, *path]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    alone = inspect.getfile(inspect.unwrap(sgm.training.keep_memory))  # without sgm, which takes seconds to load
    given_back, kept = pages(), pages(alone)
    assert given_back > 100_000 and kept < given_back / 4


@pytest.mark.quick
def test_another_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert sgm.training.keep_memory() is False
