"""The weak order of the reverse SDE's multistep solver, without sampling noise.

For estimates that are affine in the state, a step is so in the state, the past estimates and the noise, and carries
their mean and covariance exactly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sgm.model import Gaussian
from sgm.solve import SDEDPMSolverPP

pytestmark = pytest.mark.usefixtures("float64")

START, END = 5.0, -7.0  # log tan(theta), as of VP
GUIDED = np.asarray([0.8, -0.2]), np.asarray([0.09, 1.4])  # Means and variances; their average is as in guidance.
EXACT = np.asarray([0.8]), np.asarray([1.44])


def predict(gaussians, level, u):
    """The average of the Gaussians' estimates."""
    pairs = zip(*gaussians, strict=True)
    models = (Gaussian(jnp.asarray([mean]), jnp.asarray([[variance]])) for mean, variance in pairs)
    estimates = [model.predict(level, u) for model in models]
    return jax.tree.map(lambda *parts: sum(parts) / len(parts), *estimates)


def truth(gaussians):
    """Mean and variance of z = u / cos at the end of dz = 2 (z - denoised) dl + sqrt(2) e^l dB from u ~ N(0, 1)."""
    means, variances = gaussians

    def slopes(level, moments):
        kept = variances / (variances + np.exp(2 * level))
        mean, variance = moments
        estimate = np.mean(kept * mean + (1 - kept) * means)
        return 2 * (mean - estimate), 4 * (1 - kept.mean()) * variance - 2 * np.exp(2 * level)

    start = 0.0, 1 + np.exp(2 * START)
    return solve_ivp(slopes, (START, END), start, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def moments(steps, order, gaussians):
    """The same by the solver's own steps."""
    method = SDEDPMSolverPP(steps, order)
    levels = jnp.linspace(START, END, steps + 1)

    def step(carry, ends):
        mean, cov, seen, count = carry

        def advance(state, noise):
            memory = seen, state[1:, None], count
            estimate = functools.partial(predict, gaussians)
            u, (newest, pasts, _) = method.advance(estimate, *ends, state[:1], noise[None], memory)
            new = jnp.concatenate([u, pasts[:, 0]])
            return new, (new, newest)

        slopes, (mean, seen) = jax.jacfwd(advance, (0, 1), has_aux=True)(mean, jnp.zeros(1))
        return (mean, slopes[0] @ cov @ slopes[0].T + slopes[1] @ slopes[1].T, seen, count + 1), None

    seen, _, count = method.memory(jnp.zeros(1))
    start = jnp.zeros(order), jnp.zeros((order, order)).at[0, 0].set(1.0), seen, count
    (mean, cov, *_), _ = jax.lax.scan(step, start, (levels[:-1], levels[1:]))
    scale = jnp.sqrt(1 + jnp.exp(2 * END))
    return scale * mean[0], scale**2 * cov[0, 0]


@pytest.mark.parametrize(("order", "of_variance"), [(1, 1), (2, 2), (3, 2)])
def test_weak_orders(order, of_variance):
    """Of the mean, the order that the solver has without noise; of the variance 2 at most.

    Inside a step of length h, denoised moves with noise that is not drawn, and is extrapolated by noise that is past:
    either changes the variance by h^3 a step.
    """
    coarse, fine = (np.abs(np.subtract(moments(steps, order, GUIDED), truth(GUIDED))) for steps in (160, 320))
    np.testing.assert_allclose(np.log2(coarse / fine), (order, of_variance), atol=0.1)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_means_of_an_exact_model_are_exact(order):
    """E[x0 given u] is a martingale of its reverse SDE: on average there is nothing to extrapolate."""
    np.testing.assert_allclose(moments(20, order, EXACT)[0], truth(EXACT)[0], rtol=1e-9)
