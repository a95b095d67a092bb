import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgm.nn import Units

COLUMNS = np.random.default_rng(0).normal(size=(1000, 6)) * 10.0 ** np.array([-6, -3, 0, 2, 4, 6]) + [0, 1, 2, 3, 4, 5]


@pytest.mark.quick
def test_there_and_back():
    units = Units.fit(COLUMNS)
    z = units.standardise(COLUMNS)
    np.testing.assert_allclose(np.mean(z, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(z, axis=0), 1, atol=1e-5)
    np.testing.assert_allclose((units.restore(z) - COLUMNS) / np.std(COLUMNS, axis=0), 0, atol=1e-6)


@pytest.mark.quick
def test_a_fit_of_parts_is_that_of_the_whole():
    whole, parts = Units.fit(COLUMNS), Units.fit(iter(np.split(COLUMNS, [1, 200, 650])))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.quick
def test_double_precision_keeps_its_digits():
    # 2460000 days and a second: single precision has steps of a quarter of a day there.
    days = 2.46e6 + np.linspace(0, 1e-3, 100)[:, None]
    z = Units.fit(days).standardise(days)
    np.testing.assert_allclose(np.diff(z[:, 0]), np.diff(z[:, 0]).mean(), rtol=1e-3)


@pytest.mark.quick
@pytest.mark.parametrize("shape, std", [((6,), np.arange(1.0, 7)), ((4, 4, 3), np.array([1.0, 2, 3])), ((5, 2), 3.0)])
def test_the_volume_is_the_determinant(shape, std):
    units = Units(0.0, std)
    jacobian = jax.jacobian(lambda z: units.restore(z.reshape(shape)).ravel())(jnp.zeros(int(np.prod(shape))))
    np.testing.assert_allclose(units.log_volume(shape), np.linalg.slogdet(jacobian)[1], rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(lambda units: units.log_volume(shape))(units), units.log_volume(shape), rtol=1e-6
    )


@pytest.mark.quick
def test_grey_levels_fill_their_range():
    units = Units.of_levels(256)
    np.testing.assert_array_equal(units.standardise(np.array([-0.5, 127.5, 255.5])), [-1, 0, 1])


@pytest.mark.quick
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Units(0.0, np.array([1.0, 0.0])), "std = .*; pass finite numbers above 0"),
        (lambda: Units(np.nan), "mean = nan; pass finite numbers"),
        (lambda: Units.fit(np.array([[1.0, 2.0], [3.0, 2.0]])), "channel 1 is constant \\(= 2\\).*leave it out"),
        (lambda: Units.fit(np.array([[1.0, np.nan]])), "channel 1 has entries that are not finite"),
        (lambda: Units.fit(iter(())), "there are no examples"),
    ],
)
def test_what_has_no_units_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
