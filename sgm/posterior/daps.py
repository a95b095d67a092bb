"""Decoupled annealing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from sgm.checks import check_count
from sgm.posterior.chains import AbstractChains, draw_likelihood, follow
from sgm.random import normal
from sgm.sde.level import LARGEST_LEVEL, cos_of, sin_of
from sgm.solve.ddim import DDIM
from sgm.solve.grid import FixedSteps, LogSNRGrid
from sgm.solve.sampler import AbstractSampler


class DAPS(AbstractChains):
    """Decoupled annealing: at each noise level x0 is drawn anew, and noised to the next level.

    1. The flow leads u to an estimate of x0, in a few steps.
    2. x0 is drawn from N(estimate, sin(theta)^2 I) p(y | x0).
    3. u at the next level is cos(theta) x0 + sin(theta) noise.

    The paper has tan(theta) in the place of sin(theta), which is more than standardised data vary where there is more
    noise than data. It is exact for white data alone.

    Arguments:
        steps: Number of noise levels.
        flow: Sampler of step 1.
        iterations: Largest number of iterations of conjugate gradients of step 2, for linear observations.
        moves: Number of moves of elliptical slice sampling of step 2, for others.

    Raises:
        TypeError: for a count that is no integer.
        ValueError: for a count below 1.

    Example:
        >>> evidence = Nonlinear(jnp.abs, jnp.asarray([0.5, 1.0]), std=0.1)
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=DAPS(steps=10))

    Reference: Zhang et al. 2024 (arXiv:2407.01521, algorithm 1).
    """

    steps: int = eqx.field(static=True, default=100)
    flow: AbstractSampler = DDIM(5)
    iterations: int = eqx.field(static=True, default=50)
    moves: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        for name in ("steps", "iterations", "moves"):
            check_count("DAPS", name, getattr(self, name))

    def draw_one(self, sde, model, evidence, cond, key):
        levels = jnp.minimum(FixedSteps(self.steps, LogSNRGrid()).levels(sde), LARGEST_LEVEL)
        key_start, key_steps = jr.split(key)
        end = levels[-1]

        def step(u, each):
            t, s, key = each
            key_flow, key_draw, key_noise = jr.split(key, 3)
            estimate = follow(self.flow, model, cond, u, t, end, key_flow)
            x0 = draw_likelihood(evidence, model.units, estimate, sin_of(t), key_draw, self.iterations, self.moves)
            return cos_of(s) * x0 + sin_of(s) * normal(key_noise, u.shape, u.dtype), x0

        u = normal(key_start, model.shape)
        _, draws = jax.lax.scan(step, u, (levels[:-1], levels[1:], jr.split(key_steps, self.steps)))
        return draws[-1]
