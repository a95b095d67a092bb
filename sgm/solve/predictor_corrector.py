"""The predictor-corrector sampler."""

import equinox as eqx
import jax
import jax.numpy as jnp

from sgm.checks import check_count, check_instance, is_traced
from sgm.model.kernel import AbstractVariance, FixedSmall, posterior_mean
from sgm.sde.level import sin_of
from sgm.solve.grid import AbstractGrid, LogSNRGrid
from sgm.solve.sampler import AbstractSampler
from sgm.types import Number


class PredictorCorrector(AbstractSampler):
    """An ancestral step, then `corrections` steps of Langevin dynamics at the new level, each of one evaluation:

    u <- u + e score + (2 e)^(1/2) z,        e = 2 (snr sin_s)^2

    The paper's step is e = 2 (snr |z| / |score|)^2 with both norms averaged over a batch; sin_s is their ratio where
    the score is all noise, -z / sin_s. The norms of one example alone would make the step depend on its state, and
    draw from another density, by far in few dimensions.

    Arguments:
        steps: Number of steps.
        corrections: Number of Langevin steps after each ancestral step.
        snr: Size of a Langevin step, between 0 and 1.
        variance: Variance of the reverse transitions.
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a variance or a grid of another type, and numbers of steps or corrections that are not whole.
        ValueError: for fewer than one step, corrections below 0, and unless 0 < snr < 1.

    Example:
        >>> method = PredictorCorrector(100, corrections=2, snr=0.1)
        >>> method.draws  # of each step, one of them for the ancestral step
        3

    Reference: Song et al. 2021 (arXiv:2011.13456, algorithms 4 and 5, the correctors); their algorithms 2 and 3 predict
    by reverse diffusion instead.
    """

    steps: int = eqx.field(static=True, default=500)
    corrections: int = eqx.field(static=True, default=1)
    snr: Number = 0.16
    variance: AbstractVariance = FixedSmall()
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_count("PredictorCorrector", "steps", self.steps)
        check_instance("PredictorCorrector", "variance", self.variance, AbstractVariance, "sgm.model.FixedLarge()")
        check_count("PredictorCorrector", "corrections", self.corrections, 0)
        if not is_traced(self.snr) and not 0 < self.snr < 1:
            raise ValueError(f"PredictorCorrector: snr = {self.snr}; pass 0 < snr < 1, where its steps are stable.")

    @property
    def draws(self):
        return 1 + self.corrections

    def advance(self, predict, t, s, u, noise, memory):
        estimate = predict(t, u)
        std = jnp.exp(0.5 * self.variance.log_variance(s, t, estimate))
        u = posterior_mean(s, t, u, estimate.denoised) + std * noise[0]

        def correct(u, z):
            # In units of sin_s: e score = -2 snr^2 sin_s noise.
            return u + 2 * self.snr * sin_of(s) * (z - self.snr * predict(s, u).noise), None

        return jax.lax.scan(correct, u, noise[1:])[0], memory
