"""Where a sampler steps: decreasing times from t1 to t0."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import check_at_least
from sgm.sde.base import AbstractSDE
from sgm.sde.chain import DiscreteChain


class AbstractGrid(eqx.Module):
    """A rule that places steps along a process."""

    @abstractmethod
    def times(self, sde: AbstractSDE, steps: int) -> Float[Array, "{steps}+1"]:
        """`steps + 1` decreasing times, the first exactly `sde.t1` and the last exactly `sde.t0`."""


class UniformGrid(AbstractGrid):
    """Uniform in t."""

    def times(self, sde, steps):
        return jnp.linspace(sde.t1, sde.t0, steps + 1)


class QuadraticGrid(AbstractGrid):
    """Uniform in sqrt(t), so denser near the data. Source: Song et al. 2021 (DDIM, arXiv:2010.02502, appendix D.3)."""

    def times(self, sde, steps):
        inner = jnp.linspace(jnp.sqrt(sde.t1), jnp.sqrt(sde.t0), steps + 1)[1:-1] ** 2
        return _with_ends(sde, inner)


class ThetaGrid(AbstractGrid):
    """Uniform in theta = atan2(sigma, alpha)."""

    def times(self, sde, steps):
        return _with_ends(sde, sde.time(jnp.linspace(sde.theta(sde.t1), sde.theta(sde.t0), steps + 1)[1:-1]))


class LogSNRGrid(AbstractGrid):
    """Uniform in log_snr = -2 log tan(theta)."""

    def times(self, sde, steps):
        half = 0.5 * jnp.linspace(sde.log_snr(sde.t1), sde.log_snr(sde.t0), steps + 1)[1:-1]
        return _with_ends(sde, sde.time(jnp.arctan(jnp.exp(-half))))


class KarrasGrid(AbstractGrid):
    """Uniform in (sigma/alpha)^(1/power). Source: Karras et al. 2022 (arXiv:2206.00364, eq. 5)."""

    power: float = 7.0

    def __check_init__(self):
        if not self.power > 0:
            raise ValueError(f"KarrasGrid: power = {self.power}; pass power > 0.")

    def times(self, sde, steps):
        first, last = (jnp.tan(sde.theta(t)) ** (1 / self.power) for t in (sde.t1, sde.t0))
        return _with_ends(sde, sde.time(jnp.arctan(jnp.linspace(first, last, steps + 1)[1:-1] ** self.power)))


class ChainGrid(AbstractGrid):
    """A chain's own integer times, evenly strided: `chain.steps - 1` steps take all of them.

    Source: Song et al. 2021 (DDIM, arXiv:2010.02502, appendix D.3, linear).
    """

    def times(self, sde, steps):
        if not isinstance(sde, DiscreteChain):
            raise ValueError(f"ChainGrid: the process is a {type(sde).__name__}; pass a DiscreteChain or another grid.")
        if steps >= sde.steps:
            raise ValueError(
                f"ChainGrid: steps = {steps}, but from k = {sde.steps} to 1 there are {sde.steps - 1}; pass no more."
            )
        return jnp.asarray(np.rint(np.linspace(sde.steps, 1, steps + 1)), jnp.result_type(float))


class FixedSteps(eqx.Module):
    """`steps` steps on a grid, in the place of a step size controller."""

    steps: int = eqx.field(static=True, default=100)
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        check_at_least("FixedSteps", "steps", self.steps)

    def times(self, sde: AbstractSDE) -> Float[Array, " times"]:
        """The grid's times, from t1 down to t0."""
        return self.grid.times(sde, self.steps)


def _with_ends(sde, inner):
    ends = jnp.asarray([sde.t1, sde.t0], inner.dtype)
    return jnp.concatenate([ends[:1], inner, ends[1:]])
