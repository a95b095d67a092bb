"""The equations that lead from noise to data, each on a clock that increases towards the data."""

from abc import abstractmethod

import diffrax
import equinox as eqx
import jax.numpy as jnp
import lineax
from jaxtyping import Array, ArrayLike, Float, Real

from sgm.model.base import AbstractModel
from sgm.model.condition import Condition
from sgm.sde.base import AbstractSDE, OfTime, Time

Clock = Real[ArrayLike, ""]
State = Float[Array, "*shape"]


class AbstractEquation(eqx.Module):
    """A reverse-time equation for one example: its clock, its state and its vector fields."""

    sde: eqx.AbstractVar[AbstractSDE]
    model: eqx.AbstractVar[AbstractModel]
    cond: eqx.AbstractVar[Condition | None]

    @abstractmethod
    def clock(self, t: Time) -> OfTime:
        """The solve's clock at process time `t`: increasing as t decreases."""

    @abstractmethod
    def time(self, clock: Time) -> OfTime:
        """The process time at a value of the clock."""

    @abstractmethod
    def scale(self, t: Time) -> OfTime:
        """x = scale(t) state."""

    @abstractmethod
    def drift(self, clock: Clock, state: State, args: None) -> State:
        """d(state)/d(clock), less its noise."""

    @abstractmethod
    def terms(self, path: diffrax.AbstractBrownianPath) -> diffrax.AbstractTerm:
        """The Diffrax terms, driven by `path` if the equation has noise."""


class AbstractUniversalEquation(AbstractEquation):
    """An equation of u = x / rho on the clock -l = -log tan(theta), half the log-SNR."""

    def clock(self, t):
        return 0.5 * self.sde.log_snr(t)

    def time(self, clock):
        return self.sde.time(jnp.arctan(jnp.exp(jnp.negative(clock))))

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
    """dx = (f(t) x - g(t)^2 score) dt + g(t) dw, run backwards in t. Source: Anderson 1982; Song et al. 2021, eq. 6."""

    sde: AbstractSDE
    model: AbstractModel
    cond: Condition | None

    def clock(self, t):
        return jnp.negative(t)

    def time(self, clock):
        return jnp.negative(clock)

    def scale(self, t):
        return jnp.ones_like(t)

    def drift(self, clock, state, args):
        t = self.time(clock)
        score = self.model.score(self.sde, t, state, self.cond)
        return self.sde.diffusion(t) ** 2 * score - self.sde.drift(t, state)

    def noise(self, clock):
        return self.sde.diffusion(self.time(clock))


class UniversalSDE(AbstractUniversalEquation, AbstractStochasticEquation):
    """The same reverse SDE on the universal path, with l = log tan(theta) going down:

    du = (sin cos velocity + sin noise) dl + sqrt(2) sin dw
    """

    sde: AbstractSDE
    model: AbstractModel
    cond: Condition | None

    def drift(self, clock, state, args):
        theta = jnp.arctan(jnp.exp(jnp.negative(clock)))
        estimate = self.model.predict(theta, state, self.cond)
        return -jnp.sin(theta) * (jnp.cos(theta) * estimate.velocity + estimate.noise)

    def noise(self, clock):
        return jnp.sqrt(2.0) * jnp.sin(jnp.arctan(jnp.exp(jnp.negative(clock))))


class UniversalFlow(AbstractEquation):
    """The probability flow du/dtheta = E[velocity | u], with theta going down."""

    sde: AbstractSDE
    model: AbstractModel
    cond: Condition | None

    def clock(self, t):
        return -self.sde.theta(t)

    def time(self, clock):
        return self.sde.time(jnp.negative(clock))

    def scale(self, t):
        return self.sde.rho(t)

    def drift(self, clock, state, args):
        return -self.model.predict(jnp.negative(clock), state, self.cond).velocity

    def terms(self, path):
        return diffrax.ODETerm(self.drift)
