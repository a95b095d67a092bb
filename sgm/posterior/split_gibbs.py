"""Split Gibbs sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from sgm.checks import check_count, is_traced
from sgm.posterior.chains import AbstractChains, draw_likelihood, follow
from sgm.random import normal
from sgm.sde.level import cos_of
from sgm.solve.dpm_solver import SDEDPMSolverPP
from sgm.solve.sampler import AbstractSampler
from sgm.types import Number


class SplitGibbs(AbstractChains):
    """Split Gibbs sampling: draws of the model and of the likelihood in turn, coupled by N(z - x; 0, coupling^2 I).

    1. z is drawn from N(z; x, coupling^2 I) p(y | z).
    2. x is drawn from p(x | z): the reverse SDE from the level at which the noise has the standard deviation coupling.

    The coupling falls from `largest` to `smallest`, in even steps of its logarithm, and stays there for a last quarter
    of the sweeps. x then has the posterior of observations with a little more noise, of variance var + coupling^2
    A A^T: exact as `smallest` goes to 0, with ever more sweeps.

    Arguments:
        sweeps: Number of sweeps.
        largest: Coupling of the first sweep, in standardised units.
        smallest: Coupling of the last sweeps, in standardised units.
        reverse: Sampler of step 2.
        iterations: Largest number of iterations of conjugate gradients of step 1, for linear observations.
        moves: Number of moves of elliptical slice sampling of step 1, for others.

    Raises:
        TypeError: for a count that is no integer.
        ValueError: for counts below 1, and couplings that rise, or are not above 0.

    Example:
        >>> evidence = Poisson(lambda x: 20 * jax.nn.softplus(x), jnp.asarray([3, 40]))
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=SplitGibbs(sweeps=10, smallest=0.1))

    Reference: Vono et al. 2019 (arXiv:1804.05809); Wu et al. 2024 (PnP-DM, arXiv:2405.18782).
    """

    sweeps: int = eqx.field(static=True, default=100)
    largest: Number = 10.0
    smallest: Number = 0.05
    reverse: AbstractSampler = SDEDPMSolverPP(10)
    iterations: int = eqx.field(static=True, default=50)
    moves: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        for name in ("sweeps", "iterations", "moves"):
            check_count("SplitGibbs", name, getattr(self, name))
        if not is_traced((self.largest, self.smallest)) and not self.largest >= self.smallest > 0:
            raise ValueError(
                f"SplitGibbs: largest = {self.largest}, smallest = {self.smallest}; pass largest >= smallest > 0."
            )

    def draw_one(self, sde, model, evidence, cond, key):
        key_start, key_sweeps = jr.split(key)
        falling = max(1, self.sweeps - self.sweeps // 4)
        end = jnp.asarray(sde.level(sde.t0), jnp.result_type(float))
        # No level below that of t0 can be asked of the model.
        levels = jnp.maximum(jnp.linspace(jnp.log(self.largest), jnp.log(self.smallest), falling), end + 1e-3)
        levels = jnp.concatenate([levels, jnp.full(self.sweeps - falling, levels[-1])])

        def sweep(x, each):
            level, key = each
            key_likelihood, key_model = jr.split(key)
            coupling = jnp.exp(level)
            z = draw_likelihood(evidence, model.units, x, coupling, key_likelihood, self.iterations, self.moves)
            return follow(self.reverse, model, cond, cos_of(level) * z, level, end, key_model), None

        x = normal(key_start, model.shape)
        return jax.lax.scan(sweep, x, (levels, jr.split(key_sweeps, self.sweeps)))[0]
