"""Initial values are those of `jax.random.uniform`, whatever is drawn beside them."""

import math

import jax
import jax.random as jr
import numpy as np
import pytest

from sgm.nn.initial import uniform


@pytest.mark.quick
@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 5), (2, 2, 17), (0, 3), (1025, 1024)])
def test_they_are_those_of_jax(shape):
    expected = jr.uniform(jr.key(3), shape, minval=-0.2, maxval=0.2)
    np.testing.assert_array_equal(uniform(jr.key(3), shape, 0.2), expected)


@pytest.mark.quick
def test_they_are_the_same_traced():
    traced = jax.jit(lambda key: uniform(key, (3, 5), 2.0))(jr.key(1))
    np.testing.assert_array_equal(traced, uniform(jr.key(1), (3, 5), 2.0))


@pytest.mark.quick
def test_few_counts_are_drawn():
    text = str(jax.make_jaxpr(lambda key: [uniform(key, (n,), 1.0) for n in range(257, 1025)])(jr.key(0)))
    assert f"f32[{4 ** math.ceil(math.log(1024, 4))}]" in text and "f32[4096]" not in text
