import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import Shifted, gaussian, mixture

import sgm
from sgm.model import AbstractModel, Gaussian, Uniform, WithUnits
from sgm.posterior import maximum_a_posteriori

# So much noise at t1 that the standard prior stands for the exact one.
SDE = sgm.VP(sgm.sde.Cosine(ratio_max=1e4))
FEW = {"method": sgm.DDIM(20), "starts": 64, "keep": 2}


def test_the_maximum_of_a_gaussian_is_its_mean():
    model, units = gaussian(3), sgm.Units(jnp.asarray([10.0, 0.0, -3.0]), jnp.asarray([100.0, 1.0, 1e-3]))
    best = maximum_a_posteriori(SDE, WithUnits(model, units), jr.key(0), **FEW)
    assert bool(best.converged) and best.x.shape == (3,)
    np.testing.assert_allclose(units.standardise(best.x), model.mean, atol=2e-3)
    expected = model.log_prob(model.mean) - units.log_volume((3,))
    assert float(best.log_prob) == pytest.approx(float(expected), abs=5e-3)


@pytest.mark.slow
def test_the_maximum_of_a_mixture_is_its_highest_mode():
    """The narrowest has the largest density, and 0.3 of the mass."""
    model = mixture(2)
    best = maximum_a_posteriori(SDE, model, jr.key(1), **FEW)
    points = model.means[0] + 0.01 * jnp.stack(jnp.meshgrid(*[jnp.arange(-20.0, 21.0)] * 2), -1).reshape(-1, 2)
    heights = jax.vmap(model.log_prob)(points)
    assert bool(best.converged)
    np.testing.assert_allclose(best.x, points[jnp.argmax(heights)], atol=0.01)
    assert float(best.log_prob) == pytest.approx(float(heights.max()), abs=0.01)


@pytest.mark.slow
def test_the_maximum_under_a_condition_and_compiled_once():
    calls = []

    class Counted(AbstractModel):
        shape: tuple[int, ...] = (2,)

        def predict(self, level, u, cond=None, key=None):
            calls.append(level)
            return Shifted(0.5).predict(level, u, cond)

    for place, params in enumerate(([1.0, -2.0], [0.3, 0.8])):
        cond = sgm.Condition(params=jnp.asarray(params))
        best = maximum_a_posteriori(SDE, Counted(), jr.key(2), cond=cond, **FEW)
        np.testing.assert_allclose(best.x, params, atol=2e-3)
        assert bool(best.converged)
        if not place:
            traced = len(calls)
    assert len(calls) == traced  # neither another condition nor another start is another compilation


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True])
def test_the_maximum_within_a_box(inside):
    mean, cov = jnp.asarray([0.5, -1.0]), jnp.asarray([[1.0, 0.6], [0.6, 1.0]])
    if inside:
        box, expected = Uniform(mean - 0.5, mean + 0.7), mean
    else:  # one bound holds, and the other entry is at its conditional mean
        box, expected = Uniform(mean + jnp.asarray([0.5, -1.0]), mean + 1.5), mean + jnp.asarray([0.5, 0.3])
    best = maximum_a_posteriori(SDE, Gaussian(mean, cov), jr.key(3), support=box, **FEW)
    np.testing.assert_allclose(best.x, expected, atol=5e-3)
    assert bool(best.converged & box.contains(best.x))
    assert float(best.log_prob) == pytest.approx(float(Gaussian(mean, cov).log_prob(expected)), abs=5e-3)
    assert float(best.slope) < 1e-3  # also at the end, where the gradient of log p by x is not 0


@pytest.mark.slow
def test_a_log_prob_that_is_no_number_is_an_error():
    class Kinked(AbstractModel):
        """A Gaussian whose values are right, and whose derivatives are nan."""

        shape: tuple[int, ...] = (2,)

        def predict(self, level, u, cond=None, key=None):
            zero = jnp.sqrt(jnp.abs(0 * u))
            return jax.tree.map(lambda part: part + zero, gaussian(2).predict(level, u))

    for keep in (2, 100):  # of 64 starts
        with pytest.raises(
            RuntimeError, match=f"maximum_a_posteriori: log p is not finite at any of {min(keep, 64)} p"
        ):
            maximum_a_posteriori(SDE, Kinked(), jr.key(0), **FEW | {"keep": keep})


@pytest.mark.quick
@pytest.mark.usefixtures("types_unchecked")
def test_wrong_arguments_are_named():
    cond = sgm.Condition(params=jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"maximum_a_posteriori: cond has the batch axes \[\(3,\)\]"):
        maximum_a_posteriori(SDE, Shifted(1.0), jr.key(0), cond=cond)
    with pytest.raises(TypeError, match="maximum_a_posteriori: support is a function; pass an instance such as"):
        maximum_a_posteriori(SDE, gaussian(2), jr.key(0), support=lambda x: x[0] > 0)
    with pytest.raises(ValueError, match="maximum_a_posteriori: starts = 1; pass starts >= 2"):
        maximum_a_posteriori(SDE, gaussian(2), jr.key(0), starts=1)
    with pytest.raises(ValueError, match="maximum_a_posteriori: keep = 0; pass keep >= 1"):
        maximum_a_posteriori(SDE, gaussian(2), jr.key(0), keep=0)
    with pytest.raises(ValueError, match=r"maximum_a_posteriori: tolerance = -1\.0; pass tolerance > 0"):
        maximum_a_posteriori(SDE, gaussian(2), jr.key(0), tolerance=-1.0)
    with pytest.raises(
        ValueError, match=r"maximum_a_posteriori: support is of examples of shape \(3,\), but the model"
    ):
        maximum_a_posteriori(SDE, gaussian(2), jr.key(0), support=Uniform((0.0,) * 3, (1.0,) * 3))
    with pytest.raises(TypeError, match="maximum_a_posteriori: support is the class Uniform"):
        maximum_a_posteriori(SDE, gaussian(2), jr.key(0), support=Uniform)
