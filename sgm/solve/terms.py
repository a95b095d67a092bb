"""The equations that lead from noise to data, and back by the flow, each on a clock that increases on its way."""

from abc import abstractmethod

import diffrax
import equinox as eqx
import jax.numpy as jnp
import lineax
from jaxtyping import Array, ArrayLike, Float, Real

from sgm.model.base import AbstractModel, estimate_of
from sgm.nn.condition import Condition
from sgm.sde.base import AbstractSDE
from sgm.sde.level import LARGEST_LEVEL, angle_rate, clock_of, cos_of, level_at, sin_of
from sgm.types import OfTime, Time

Clock = Real[ArrayLike, ""]
State = Float[Array, "*shape"]


class AbstractEquation(eqx.Module):
    """A reverse-time equation for one example: its clock, its state and its vector fields."""

    sde: eqx.AbstractVar[AbstractSDE]
    model: eqx.AbstractVar[AbstractModel]
    cond: eqx.AbstractVar[Condition | None]

    @abstractmethod
    def clock(self, level: Time) -> OfTime:
        """The solve's clock at a noise level: increasing as the level falls."""

    @abstractmethod
    def level(self, clock: Time) -> OfTime:
        """The noise level at a value of the clock."""

    @abstractmethod
    def scale(self, t: Time) -> OfTime:
        """x = scale(t) state, at process time `t`."""

    @abstractmethod
    def drift(self, clock: Clock, state: State, args: None) -> State:
        """d(state)/d(clock), less its noise."""

    @abstractmethod
    def terms(self, path: diffrax.AbstractBrownianPath) -> diffrax.AbstractTerm:
        """The Diffrax terms, driven by `path` if the equation has noise."""

    def from_noise(self, level: Time, noise: State) -> State:
        """The state at `level` when the level before was infinite, where `noise` was all there was.

        cos denoised + sin noise, with the model's estimate of x0 from pure noise: its mean, if it is exact.
        """
        estimate = estimate_of(self.model, jnp.full((), jnp.inf, noise.dtype), noise, self.cond)
        u = cos_of(level) * estimate.denoised + sin_of(level) * noise
        return u * self.sde.rho(self.sde.time(level)) / self.scale(self.sde.time(level))


class AbstractUniversalEquation(AbstractEquation):
    """An equation of u = x / rho."""

    def scale(self, t):
        return self.sde.rho(t)


class AbstractStochasticEquation(AbstractEquation):
    """An equation with noise, whose size does not depend on the state."""

    @abstractmethod
    def noise(self, clock: Clock) -> Float[Array, ""]:
        """The standard deviation of the noise for a unit of the clock."""

    def terms(self, path):
        return diffrax.MultiTerm(diffrax.ODETerm(self.drift), diffrax.ControlTerm(self._diffusion, path))

    def _diffusion(self, clock, state, args):
        return lineax.DiagonalLinearOperator(jnp.full(state.shape, self.noise(clock), state.dtype))


class ReverseTimeSDE(AbstractStochasticEquation):
    """dx = (f(t) x - g(t)^2 score) dt + g(t) dw, run backwards in t.

    Reference: Anderson 1982 (doi:10.1016/0304-4149(82)90051-5); Song et al. 2021 (arXiv:2011.13456, eq. 6).
    """

    sde: AbstractSDE
    model: AbstractModel
    cond: Condition | None

    def clock(self, level):
        return jnp.negative(self.sde.time(level))

    def level(self, clock):
        return self.sde.level(jnp.negative(clock))

    def scale(self, t):
        return jnp.ones_like(t)

    def drift(self, clock, state, args):
        t = jnp.negative(clock)
        level = jnp.asarray(self.sde.level(t), state.dtype)
        score = -estimate_of(self.model, level, state / self.sde.rho(t), self.cond).noise / self.sde.sigma(t)
        return self.sde.diffusion(t) ** 2 * score - self.sde.drift(t, state)

    def noise(self, clock):
        return self.sde.diffusion(jnp.negative(clock))


class UniversalSDE(AbstractUniversalEquation, AbstractStochasticEquation):
    """The same reverse SDE on the universal path, with l = log tan(theta) going down:

    du = (sin cos velocity + sin noise) dl + sqrt(2) sin dw

    Its clock is the share of the way from the first level to the last, whose ends 0 and 1 no derivative moves: a
    Brownian path cannot be differentiated by its ends.
    """

    sde: AbstractSDE
    model: AbstractModel
    cond: Condition | None

    def clock(self, level):
        first, span = self._span()
        return (first - level) / span

    def level(self, clock):
        first, span = self._span()
        return first - span * clock

    def drift(self, clock, state, args):
        level, (_, span) = self.level(clock), self._span()
        estimate = estimate_of(self.model, level, state, self.cond)
        return -span * sin_of(level) * (cos_of(level) * estimate.velocity + estimate.noise)

    def noise(self, clock):
        _, span = self._span()
        return jnp.sqrt(2 * span) * sin_of(self.level(clock))

    def _span(self):
        first = jnp.minimum(self.sde.level(self.sde.t1), LARGEST_LEVEL)
        return first, first - self.sde.level(self.sde.t0)


class UniversalFlow(AbstractUniversalEquation):
    """The probability flow du/dtheta = E[velocity | u], on the clock of `sgm.sde.level`, or minus it towards the data.

    Arguments:
        to_data: Whether it leads from noise to data, or from data to noise.
    """

    sde: AbstractSDE
    model: AbstractModel
    cond: Condition | None
    to_data: bool = eqx.field(static=True, default=True)

    @property
    def sign(self) -> int:
        """Sign of the clock."""
        return -1 if self.to_data else 1

    def clock(self, level):
        return self.sign * clock_of(level)

    def level(self, clock):
        return level_at(self.sign * jnp.asarray(clock))

    def drift(self, clock, state, args):
        level = self.level(clock)
        return self.sign * angle_rate(level) * estimate_of(self.model, level, state, self.cond).velocity

    def terms(self, path):
        return diffrax.ODETerm(self.drift)
