"""Imports run one way, and importing the library loads and starts nothing that is not used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sgm

pytestmark = pytest.mark.quick

PACKAGE = Path(sgm.__file__).parent
# Each may import what stands before it.
ORDER = (
    *("types", "random", "checks", "parallel", "sde", "nn", "model", "solve", "sample", "likelihood", "encode"),
    *("posterior", "data", "plot", "training", "evaluation", "options", "serial", "interop", "flags", "experiment"),
    *("runs", "stages", "cli"),
)


def rooms():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("__init__", "__main__", "configs"):
            yield parts[0], path


def imported(path):
    """The rooms of the library that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sgm."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "sgm":
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize(("room", "path"), rooms(), ids=lambda part: part.name if isinstance(part, Path) else part)
def test_no_import_runs_back_up(room, path):
    later = {name for name in imported(path) if name in ORDER and ORDER.index(name) > ORDER.index(room)}
    assert not later


def test_importing_loads_and_starts_nothing_that_is_not_used():
    program = (
        "import sys, sgm, jax\n"
        "late = {'matplotlib', 'datasets', 'scipy.stats', 'orbax', 'pyarrow', 'pandas', 'sklearn', 'tyro'}\n"
        "late |= {'PIL', 'numpyro', 'safetensors', 'huggingface_hub'}\n"
        "print(sorted(late & set(sys.modules)), jax._src.xla_bridge._backends)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[] {}"
