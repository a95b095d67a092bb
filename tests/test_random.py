"""Random numbers are those of JAX, in whatever shape they are drawn."""

import re

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from sgm import random

KEY = jr.key(3)
SHAPES = [(), (1,), (3, 5), (2, 2, 17), (0, 3)]


@pytest.mark.quick
@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_those_of_jax(shape):
    np.testing.assert_allclose(random.normal(KEY, shape), jr.normal(KEY, shape), rtol=1e-6)
    np.testing.assert_array_equal(random.uniform(KEY, shape), jr.uniform(KEY, shape))
    truncated = jr.truncated_normal(KEY, -2, 2, shape)
    np.testing.assert_allclose(random.truncated_normal(KEY, 2.0, shape), truncated, rtol=1e-6)
    np.testing.assert_array_equal(random.rademacher(KEY, shape, jnp.float32), jr.rademacher(KEY, shape, jnp.float32))
    np.testing.assert_array_equal(random.bernoulli(KEY, 0.3, shape), jr.bernoulli(KEY, 0.3, shape))


@pytest.mark.quick
@pytest.mark.parametrize("shape", [*SHAPES, (4,), (1025, 1024)])
def test_initial_values_are_those_of_jax(shape):
    expected = jr.uniform(KEY, shape, minval=-0.2, maxval=0.2)
    np.testing.assert_array_equal(random.initial(KEY, shape, 0.2), expected)


@pytest.mark.quick
def test_initial_values_are_the_same_traced():
    traced = jax.jit(lambda key: random.initial(key, (3, 5), 2.0))(KEY)
    np.testing.assert_array_equal(traced, random.initial(KEY, (3, 5), 2.0))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("least", "most", "drawn"),
    [(1, 1, 1), (2, 4, 4), (257, 1024, 1024), (2**20, 2**20, 2**20), (3 * 2**20 - 5, 3 * 2**20, 3 * 2**20)],
)
def test_initial_values_are_drawn_in_few_counts(least, most, drawn):
    for count in (least, (least + most) // 2, most):
        text = str(jax.make_jaxpr(lambda key, count=count: random.initial(key, (count,), 1.0))(KEY))
        assert re.findall(r"random_bits\[bit_width=32 shape=\((\d+),\)\]", text) == [str(drawn)]
