import itertools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from sgm.solve import GridBrownianPath

TS = jnp.asarray([0.0, 0.1, 0.15, 0.9, 1.0])


def path(key, levy_area=diffrax.SpaceTimeLevyArea):
    return GridBrownianPath(TS, jax.ShapeDtypeStruct((3,), jnp.float32), key, levy_area)


def test_increments_are_normal_and_independent():
    def increments(key):
        area = [path(key).evaluate(a, b, use_levy=True) for a, b in itertools.pairwise(TS)]
        return jnp.stack([step.W for step in area]), jnp.stack([step.H for step in area])

    w, h = jax.vmap(increments)(jr.split(jr.key(0), 2000))
    dt = jnp.diff(TS)[:, None]
    for values, variance in ((w, dt), (h, dt / 12)):
        standard = np.asarray(values / jnp.sqrt(variance))
        assert stats.kstest(standard.ravel(), "norm").pvalue > 0.01
        correlation = np.corrcoef(standard.reshape(2000, -1).T) - np.eye(12)
        assert np.abs(correlation).max() < 0.1
    assert abs(np.corrcoef(np.asarray(w).ravel(), np.asarray(h).ravel())[0, 1]) < 0.05


def test_an_interval_is_always_the_same():
    first, second = (path(jr.key(1)).evaluate(TS[2], TS[3]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    below, above = jnp.nextafter(TS[2], -1.0), jnp.nextafter(TS[3], 2.0)
    np.testing.assert_allclose(path(jr.key(1)).evaluate(below, above), first, rtol=1e-5)


def test_points_of_a_path_are_refused():
    with pytest.raises(ValueError, match="GridBrownianPath: got one time"):
        path(jr.key(0)).evaluate(TS[1])
