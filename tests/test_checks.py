import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

import sgm
from sgm.checks import warn_of_scale

NORMAL = jr.normal(jr.key(0), (64, 4))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (12 * NORMAL, "the root mean square 1"),
        (1e6 * NORMAL.at[:, 1:].set(0), r"call: x has the root mean square 4.48e\+05 \(mean 9"),
        (jr.randint(jr.key(1), (8, 8, 8, 1), 0, 256).astype(float), r"pass \(x - mean\) / std of each column or"),
        (4 + 0.3 * NORMAL, r"\(mean 4.01, standard deviation 0.286\)"),
        (1e30 * NORMAL, r"e\+"),
    ],
)
def test_data_far_from_unit_scale_are_named(x, said):
    with pytest.warns(UserWarning, match=said):
        warn_of_scale("call", x)


@pytest.mark.parametrize(
    "x",
    [
        8 * NORMAL,
        4 + 0.6 * NORMAL,
        0.05 + 1e-3 * NORMAL,
        jnp.full((2, 2), 3.0),
        jnp.zeros(2),
        sgm.data.Checkerboard().draw(jr.key(0), 100),
        jnp.full((4, 4, 1), jnp.nan),
    ],
)
def test_data_of_about_unit_scale_pass(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scale("call", x)


def test_traced_data_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(lambda x: warn_of_scale("call", x))(1e6 * NORMAL)


def test_the_warning_is_of_the_line_that_called():
    """In a program of its own, where no type checker stands between the calls."""
    program = "from sgm.checks import warn_of_scale\ndef entry(x):\n    warn_of_scale('entry', x)\nentry([1e6, -1e6])\n"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "<string>:4: UserWarning: entry: x has the root mean square 1e+06" in result.stderr
