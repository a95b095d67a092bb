"""The sampler DDIM."""

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_count, is_traced
from sgm.sde.level import cos_of, removed, sin_of
from sgm.solve.grid import AbstractGrid, LogSNRGrid
from sgm.solve.sampler import AbstractSampler
from sgm.types import Number


class DDIM(AbstractSampler):
    """u_s = cos_s denoised + (sin_s^2 - w^2)^(1/2) noise + w z, w^2 = eta^2 (1 - r) sin_s^2; one evaluation a step.

    denoised and noise are the estimates at t, r is the signal-to-noise ratio at t over that at s, and z a standard
    normal draw. At eta = 0 it is Euler's method on x/alpha driven by sigma/alpha, of order 1; at eta = 1 the ancestral
    sampler of small variance.
    The default is for speed: it draws Gaussians with a spread that is off by 6%.

    Arguments:
        steps: Number of steps.
        eta: Share of fresh noise, from 0 (none) to 1 (that of the ancestral sampler).
        grid: Rule that places the steps along the process.

    Raises:
        TypeError: for a grid of another type, and a number of steps that is not whole.
        ValueError: for fewer than one step, and unless 0 <= eta <= 1.

    Example:
        >>> x = sgm.sample(sde, model, key, 8, method=DDIM(20))
        >>> method = DDIM(20, eta=1.0)  # with fresh noise in every step

    Reference: Song et al. 2021 (arXiv:2010.02502, eq. 12 and 16).
    """

    steps: int = eqx.field(static=True, default=50)
    eta: Number = 0.0
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_count("DDIM", "steps", self.steps)
        if not is_traced(self.eta) and not 0 <= self.eta <= 1:
            raise ValueError(f"DDIM: eta = {self.eta}; pass 0 <= eta <= 1.")

    @property
    def draws(self):
        return 1

    def advance(self, predict, t, s, u, noise, memory):
        estimate = predict(t, u)
        share = self.eta * jnp.sqrt(removed(s, t))
        kept = jnp.sqrt(1 - share**2) * estimate.noise + share * noise[0]
        return cos_of(s) * estimate.denoised + sin_of(s) * kept, memory
