import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
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


def test_data_far_from_the_prior_are_told():
    x = 127 + 60 * np.random.default_rng(0).standard_normal((16, 4), np.float32)
    model = sgm.model.Gaussian(jnp.zeros(4), jnp.diag(jnp.arange(1.0, 5.0)))
    with pytest.warns(UserWarning, match=r"log_prob: at t1 of VP the data are still about .* nats from the prior"):
        sgm.log_prob(sgm.VP(), model, x, trace=sgm.Exact())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sgm.log_prob(sgm.VP(), model, x / 127 - 1, trace=sgm.Exact())
        sgm.log_prob(sgm.VP(sgm.sde.Cosine(ratio_max=1e6)), model, x, trace=sgm.Exact())
