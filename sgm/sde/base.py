"""Linear-Gaussian noising processes.

    x_t = alpha(t) x0 + sigma(t) noise          dx = f(t) x dt + g(t) dw
    level = log(sigma/alpha) = -log_snr/2       f = d log(alpha)/dt        g^2 = 2 sigma^2 d level/dt
    x = rho u,  rho = sqrt(alpha^2 + sigma^2),  tan(theta) = exp(level),   u = cos(theta) x0 + sin(theta) noise

Time grows with noise, from `t0` (data) to `t1` (prior). Every function of time acts elementwise.
"""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from sgm.checks import is_traced
from sgm.random import normal
from sgm.sde.level import removed, theta_of
from sgm.sde.process import AbstractProcess
from sgm.types import Number, OfTime, Time


class Prior(eqx.Module):
    """The density N(0, std^2 I) from which sampling starts.

    Arguments:
        std: Standard deviation.

    Example:
        >>> prior = sgm.VE(sigma_max=50.0).prior
        >>> x1 = prior.sample(key, (32, 32, 3))
        >>> round(float(prior.std), 2)  # sqrt(1 + 50^2): the data have variance 1
        50.01
    """

    std: Float[Array, ""]

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """One draw of the given shape."""
        return self.std * normal(key, shape)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """log N(x; 0, std^2 I) of one example, in nats."""
        std = jnp.asarray(self.std, x.dtype)  # of double precision in a session of it, where x may have less
        return -0.5 * jnp.sum((x / std) ** 2) - x.size * jnp.log(std * math.sqrt(2 * math.pi))


class AbstractSDE(AbstractProcess):
    """A process is its `alpha`, `sigma` and `rho`, its noise `level` and the inverse `time` of it, all in closed form.

    The rest is derived here. The noise level may be infinite at `t1`, where nothing is left of the data.
    """

    t0: eqx.AbstractVar[Number]
    t1: eqx.AbstractVar[Number]

    def __check_init__(self):
        name, t0, t1 = type(self).__name__, self.t0, self.t1
        if is_traced(self):
            return
        if not t0 < t1:
            raise ValueError(f"{name}: got t0={t0}, t1={t1}; pass t0 < t1, the data's end first.")
        with jax.ensure_compile_time_eval():  # Processes are also built inside of traces.
            low, high = float(self.level(t0)), float(self.level(t1))
        if not math.isfinite(low):
            raise ValueError(f"{name}: at t0={t0} the log-SNR is {-2 * low}; pass an end with both data and noise.")
        if not low < high:
            raise ValueError(
                f"{name}: the log-SNR goes from {-2 * low} at t0={t0} to {-2 * high} at t1={t1}; "
                "pass ends between which it falls."
            )

    @abstractmethod
    def alpha(self, t: Time) -> OfTime:
        """What is left of the data: E[x_t | x0] = alpha(t) x0."""

    @abstractmethod
    def sigma(self, t: Time) -> OfTime:
        """The standard deviation of x_t given x0."""

    @abstractmethod
    def rho(self, t: Time) -> OfTime:
        """The scale sqrt(alpha^2 + sigma^2) that separates x = rho u from the universal path u."""

    @abstractmethod
    def level(self, t: Time) -> OfTime:
        """The noise level log(sigma(t) / alpha(t)) = log tan(theta(t)), increasing."""

    @abstractmethod
    def time(self, level: Time) -> OfTime:
        """The time at which the noise level equals `level`."""

    def log_snr(self, t: Time) -> OfTime:
        """The log-signal-to-noise ratio 2 log(alpha(t) / sigma(t))."""
        return -2 * self.level(t)

    def theta(self, t: Time) -> OfTime:
        """The angle atan2(sigma(t), alpha(t)), in radians between 0 and pi/2."""
        return theta_of(self.level(t))

    def drift(self, t: Time, x: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """f(t) x with f = d log(alpha)/dt."""
        alpha, slope = _with_derivative(self.alpha, t)
        return slope / alpha * x

    def diffusion(self, t: Time) -> OfTime:
        """g(t) = sigma sqrt(2 d level/dt)."""
        _, slope = _with_derivative(self.level, t)
        return self.sigma(t) * jnp.sqrt(2 * slope)

    def level_rate(self, t: Time) -> OfTime:
        """d level/dt = g^2 / (2 sigma^2)."""
        return _with_derivative(self.level, t)[1]

    def marginal(self, t: Time, x0: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], OfTime]:
        """Mean and standard deviation of x_t given x0."""
        return self.alpha(t) * x0, self.sigma(t)

    def transition(self, s: Time, t: Time) -> tuple[OfTime, OfTime]:
        """`(scale, std)` of x_t | x_s ~ N(scale x_s, std^2 I) for s <= t.

        scale = alpha_t / alpha_s and std^2 = sigma_t^2 (1 - exp(2 (level_s - level_t))).
        """
        scale = self.alpha(t) / self.alpha(s)
        return scale, self.sigma(t) * jnp.sqrt(removed(self.level(s), self.level(t)))

    @property
    def prior(self) -> Prior:
        """N(0, rho(t1)^2 I), the density that stands for p_t1."""
        return Prior(self.rho(self.t1))

    @property
    def ends_in_pure_noise(self) -> bool | None:
        """Whether the level at t1 is infinite; None where the process is traced, whose level cannot be looked at."""
        if is_traced(self):
            return None
        with jax.ensure_compile_time_eval():
            return bool(np.isinf(self.level(self.t1)))

    @property
    def has_flow(self):
        return True

    def until(self, t):
        return eqx.tree_at(lambda sde: sde.t1, self, t)

    def curves(self, t):
        rates = {"-f": -self.drift(t, jnp.ones_like(t)), "g": self.diffusion(t)}
        return {"alpha": self.alpha(t), "sigma": self.sigma(t)}, {"log-SNR": self.log_snr(t)}, rates


def _with_derivative(function, t):
    t = jnp.asarray(t, jnp.result_type(float))
    return jax.jvp(function, (t,), (jnp.ones_like(t),))
