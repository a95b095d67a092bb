import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_a_type_checker_knows_right_calls_from_wrong_ones():
    """A wrong call that passes fails as well, since its comment is then unnecessary."""
    command = [sys.executable, "-m", "pyright", "tests/typing_of_calls.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
