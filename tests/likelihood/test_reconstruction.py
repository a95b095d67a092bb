import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from truth import FOUR, PROCESSES, gaussian, mixture

import sgm
from sgm.likelihood import reconstruction


@eqx.filter_jit
def parts(sde, model, n=4000):
    """log p0(x0), log p_t0(x), and the reconstruction of x0 from x, all of exact models."""
    x0 = model.sample(jr.key(0), n)
    mean, std = sde.marginal(sde.t0, x0)
    x = mean + std * jr.normal(jr.key(1), x0.shape)
    clean = jax.vmap(model.log_prob)(x0)
    noisy = jax.vmap(model.marginal(sde, sde.t0).log_prob)(x)
    return clean, noisy, reconstruction(sde, model, x0, x)


@pytest.mark.slow_except("mixture-VP", "Gaussian-VE")
@pytest.mark.parametrize("process", FOUR)
@pytest.mark.parametrize("model", [gaussian(16), mixture(2)], ids=["Gaussian", "mixture"])
def test_with_it_log_prob_bounds_the_density_of_the_data(process, model):
    clean, noisy, term = parts(PROCESSES[process], model)
    gap = np.asarray(clean - noisy - term)
    error = gap.std() / len(gap) ** 0.5
    # A bound, and at a noise of 1e-3 a tight one.
    assert -4 * error - 1e-4 < gap.mean() < 1e-3 + 4 * error


def test_the_gap_is_that_of_two_gaussians():
    """For N(0, w^2) data the posterior has variance (1 / w^2 + 1 / s^2)^-1, and p(x0 | x) takes s^2 for it."""
    sde = sgm.VP(t0=float(sgm.VP().time(np.log(0.1))))
    width, noise = 0.3, 0.1
    model = sgm.model.Gaussian(jnp.zeros(1), jnp.eye(1) * width**2)
    clean, noisy, term = parts(sde, model, 40_000)
    ratio = 1 / (1 + (noise / width) ** 2)
    expected = 0.5 * (ratio - 1 - np.log(ratio))
    gap = np.asarray(clean - noisy - term)
    np.testing.assert_allclose(gap.mean(), expected, atol=4 * gap.std() / len(gap) ** 0.5)


def test_a_perfect_reconstruction_is_the_change_of_units():
    """Where E[x0 | x] = x / alpha, only the D log(alpha) of the scale is left."""
    sde = sgm.VP(t0=0.3)
    wide = sgm.model.Gaussian(jnp.zeros(3), jnp.eye(3) * 1e8)
    x0 = jnp.asarray([[0.3, -0.2, 0.5]])
    x = sde.alpha(0.3) * x0 + sde.sigma(0.3) * jnp.asarray([[1.0, -0.5, 0.2]])
    np.testing.assert_allclose(reconstruction(sde, wide, x0, x), 3 * jnp.log(sde.alpha(0.3)), rtol=1e-3)
