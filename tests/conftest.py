import contextlib
import fnmatch
import gc
import os
import pathlib
import tempfile

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
# Compiled functions outlive a run of the tests, so that the next one starts warm.
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(tempfile.gettempdir()) / "sgm-test-compilation-cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
# With a limit the cache is locked while it is written: processes that share one read no half of a function.
jax.config.update("jax_compilation_cache_max_size", 2**30)
# Small functions that run once: a third of the time of the tests is XLA polishing them.
jax.config.update("jax_disable_most_optimizations", True)
# XLA's older code generator takes half the time of its newer one. Read when the first array is made; programs that the
# tests run inherit it.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
# Where in Python an operation stands is of no use to a compiled function that is not looked at.
jax.config.update("jax_traceback_in_locations_limit", 0)


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
