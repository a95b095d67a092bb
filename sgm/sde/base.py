"""Linear-Gaussian noising processes.

    x_t = alpha(t) x0 + sigma(t) noise          dx = f(t) x dt + g(t) dw
    log_snr = 2 log(alpha/sigma)                f = d log(alpha)/dt        g^2 = -sigma^2 d log_snr/dt
    x = rho u,  rho = sqrt(alpha^2 + sigma^2),  theta = atan2(sigma, alpha),  u = cos(theta) x0 + sin(theta) noise

Time grows with noise, from `t0` (data) to `t1` (prior). Every function of time acts elementwise.
"""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from sgm.checks import is_traced
from sgm.sde.schedules import OfTime, Time


class Prior(eqx.Module):
    """The density N(0, std^2 I) from which sampling starts."""

    std: Float[Array, ""]

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """One draw of the given shape."""
        return self.std * jr.normal(key, shape)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """log N(x; 0, std^2 I) of one example, in nats."""
        return -0.5 * jnp.sum((x / self.std) ** 2) - x.size * jnp.log(self.std * math.sqrt(2 * math.pi))


class AbstractSDE(eqx.Module):
    """A process is its `alpha`, its `sigma` and the inverse `time` of its noise level; the rest is derived here."""

    t0: eqx.AbstractVar[float]
    t1: eqx.AbstractVar[float]

    def __check_init__(self):
        name, t0, t1 = type(self).__name__, self.t0, self.t1
        if is_traced(self):
            return
        if not t0 < t1:
            raise ValueError(f"{name}: got t0={t0}, t1={t1}; pass t0 < t1, the data's end first.")
        with jax.ensure_compile_time_eval():  # Processes are also built inside of traces.
            log_snrs = {f"t0={t0}": self.log_snr(t0), f"t1={t1}": self.log_snr(t1)}
            for end, log_snr in log_snrs.items():
                if not jnp.isfinite(log_snr):
                    raise ValueError(
                        f"{name}: at {end} the log-SNR is {log_snr}; pass an end with both data and noise."
                    )

    @abstractmethod
    def alpha(self, t: Time) -> OfTime:
        """What is left of the data: E[x_t | x0] = alpha(t) x0."""

    @abstractmethod
    def sigma(self, t: Time) -> OfTime:
        """The standard deviation of x_t given x0."""

    @abstractmethod
    def time(self, theta: Time) -> OfTime:
        """The time at which atan2(sigma, alpha) equals `theta`, in radians."""

    def theta(self, t: Time) -> OfTime:
        """The noise level atan2(sigma(t), alpha(t)), in radians between 0 and pi/2."""
        return jnp.arctan2(self.sigma(t), self.alpha(t))

    def rho(self, t: Time) -> OfTime:
        """The scale sqrt(alpha^2 + sigma^2) that separates x = rho u from the universal path u."""
        return jnp.hypot(self.alpha(t), self.sigma(t))

    def log_snr(self, t: Time) -> OfTime:
        """2 log(alpha(t) / sigma(t))."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def drift(self, t: Time, x: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """f(t) x with f = d log(alpha)/dt."""
        alpha, slope = _with_derivative(self.alpha, t)
        return slope / alpha * x

    def diffusion(self, t: Time) -> OfTime:
        """g(t) = sigma sqrt(-d log_snr/dt)."""
        _, slope = _with_derivative(self.log_snr, t)
        return self.sigma(t) * jnp.sqrt(-slope)

    def marginal(self, t: Time, x0: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], OfTime]:
        """Mean and standard deviation of x_t given x0."""
        return self.alpha(t) * x0, self.sigma(t)

    def transition(self, s: Time, t: Time) -> tuple[OfTime, OfTime]:
        """`(scale, std)` of x_t | x_s ~ N(scale x_s, std^2 I) for s <= t.

        scale = alpha_t / alpha_s and std^2 = -sigma_t^2 expm1(log_snr_t - log_snr_s).
        """
        scale = self.alpha(t) / self.alpha(s)
        return scale, self.sigma(t) * jnp.sqrt(-jnp.expm1(self.log_snr(t) - self.log_snr(s)))

    @property
    def prior(self) -> Prior:
        """N(0, rho(t1)^2 I), the density that stands for p_t1."""
        return Prior(self.rho(self.t1))


def _with_derivative(function, t):
    t = jnp.asarray(t, jnp.result_type(float))
    return jax.jvp(function, (t,), (jnp.ones_like(t),))
