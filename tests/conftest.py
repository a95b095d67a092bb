import contextlib
import fnmatch
import gc
import os
import pathlib
import shutil
import tempfile

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
# Compiled functions outlive a run of the tests, so that the next one starts warm. A folder of each worker: one that is
# shared needs a lock, and JAX looks at every file in it whenever it writes one.
CACHE = pathlib.Path(tempfile.gettempdir(), "sgm-test-compilation-cache", os.environ.get("PYTEST_XDIST_WORKER", "main"))
if sum(path.stat().st_size for path in CACHE.glob("*")) > 2**30:
    shutil.rmtree(CACHE)
OPTIONS = {
    "jax_compilation_cache_dir": str(CACHE),
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    # Small functions that run once: a third of the time of the tests is XLA polishing them.
    "jax_disable_most_optimizations": True,
    # Where in Python an operation stands is of no use to a compiled function that is not looked at.
    "jax_traceback_in_locations_limit": 0,
}
for name, value in OPTIONS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)  # Of programs that the tests run.
# Read when the first array is made. XLA's older code generator takes half the time of its newer one. What is compiled
# whole takes four fifths of the time of what is compiled in pieces, for which there are no cores.
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
MOST_MAPS = 30_000  # Of the 65,530 pieces of memory that Linux lets a process map.


def pytest_ignore_collect(collection_path, config):
    """Files without a quick test are not even imported for `-m quick`: that would take longer than the tests."""
    if config.option.markexpr == "quick" and collection_path.suffix == ".py":
        return True if "mark.quick" not in collection_path.read_text() else None
    return None


def pytest_itemcollected(item):
    """Cases of a test under `slow_except(*kept)` are slow, but for those whose id matches one of the patterns."""
    for marker in item.iter_markers("slow_except"):
        if not any(fnmatch.fnmatchcase(item.callspec.id, kept) for kept in marker.args):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Tracing makes many small objects: Python looks for dead ones less often, and not among those of the imports."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def _free_compiled_functions():
    """A process may hold only so many mapped pieces of memory, of which each compiled function takes some."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="module")
def optimised():
    """XLA at full strength, with which a training step takes half as long."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def float64():
    """Double precision for the whole test."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        yield


@pytest.fixture
def types_unchecked():
    """For tests of how the library itself answers a wrong type, as it does outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def standard_promotion():
    """For tests that run other libraries' code, which is not written for strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield
