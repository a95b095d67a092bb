"""Ancestral sampling, by the reverse transitions."""

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_count, check_instance
from sgm.model.kernel import AbstractVariance, FixedSmall, posterior_mean
from sgm.solve.grid import AbstractGrid, LogSNRGrid
from sgm.solve.sampler import AbstractSampler


class Ancestral(AbstractSampler):
    """u_s ~ p(u_s | u_t), the reverse transition of `sgm.model.kernel`, one evaluation a step.

    On a chain's own steps, `Ancestral(chain.steps - 1, grid=ChainGrid())`, it is the sampler of the chain: the last
    step of all, from k = 1 to 0, is the denoised end that `sample` returns. By default, samples of a Gaussian have
    0.985 to 0.996 of its spread (docs/sampling.md).

    Arguments:
        steps: Number of steps.
        variance: Variance of the reverse transitions.
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a variance or a grid of another type, and a number of steps that is not whole.
        ValueError: for fewer than one step.

    Example:
        >>> x = sgm.sample(chain, model, key, 8, method=Ancestral(chain.steps - 1, grid=ChainGrid()))
        >>> method = Ancestral(250, FixedLarge())

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (DDPM, arXiv:2006.11239, algorithm 2).
    """

    steps: int = eqx.field(static=True, default=500)
    variance: AbstractVariance = FixedSmall()
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_count("Ancestral", "steps", self.steps)
        check_instance("Ancestral", "variance", self.variance, AbstractVariance, "sgm.model.FixedLarge()")

    @property
    def draws(self):
        return 1

    def advance(self, predict, t, s, u, noise, memory):
        estimate = predict(t, u)
        std = jnp.exp(0.5 * self.variance.log_variance(s, t, estimate))
        return posterior_mean(s, t, u, estimate.denoised) + std * noise[0], memory
