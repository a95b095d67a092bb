"""What a variance-preserving process is built from: the integrated rate B(t), the integral of beta from 0 to t."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import wadler_lindig as wl
from jaxtyping import Array, Float

from sgm.checks import is_traced
from sgm.types import Number, OfTime, Time


class AbstractSchedule(eqx.Module):
    """A monotone integrated rate `B(t)`, with its inverse."""

    @abstractmethod
    def integral(self, t: Time) -> OfTime:
        """B(t), the integral of beta from 0 to t."""

    @abstractmethod
    def inverse(self, integral: Time) -> OfTime:
        """The time at which B equals `integral`."""


def to_table(numbers: tuple[float, ...] | Float[np.ndarray | Array, "..."]) -> tuple[float, ...]:
    """Real numbers as a tuple of Python floats, which keeps all digits and can be hashed."""
    return tuple(np.asarray(numbers, np.float64).tolist())


def short_table(name: str, **fields: Any) -> wl.AbstractDoc:
    """How a class is printed whose fields are tables or numbers: of a table its size alone, as of Equinox's arrays."""
    texts = (
        f"{field}=f64[{len(value)}]" if isinstance(value, tuple) else f"{field}={value}"
        for field, value in fields.items()
    )
    return wl.TextDoc(f"{name}({', '.join(texts)})")


def log1mexp(integral: Time) -> OfTime:
    """log(1 - exp(-B)) for B >= 0, which is 0 at B = inf."""
    return jnp.log(-jnp.expm1(-jnp.asarray(integral)))


def check_schedule(process: str, schedule: Any) -> None:
    """Raise TypeError for what is no schedule, such as a function beta(t)."""
    if not isinstance(schedule, AbstractSchedule):
        raise TypeError(
            f"{process}: schedule is a {type(schedule).__name__}; pass a schedule such as sgm.sde.Linear(0.1, 20.0) or "
            "sgm.sde.Cosine(), or a subclass of sgm.sde.AbstractSchedule with the integral of beta and its inverse."
        )


def check_ratios(schedule: str, ratio_min: Number, ratio_max: Number) -> None:
    """Raise unless 0 < ratio_min < ratio_max; traced ones pass."""
    if not is_traced((ratio_min, ratio_max)) and not 0 < ratio_min < ratio_max:
        raise ValueError(
            f"{schedule}: got ratio_min={ratio_min}, ratio_max={ratio_max}; pass 0 < ratio_min < ratio_max."
        )


class Linear(AbstractSchedule):
    """beta(t) = beta_min + t (beta_max - beta_min), so B(t) = beta_min t + (beta_max - beta_min) t^2 / 2.

    Arguments:
        beta_min: Rate at t = 0.
        beta_max: Rate at t = 1.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max.

    Example:
        >>> sde = sgm.VP(Linear(0.1, 20.0))
        >>> round(float(sde.schedule.integral(1.0)), 2)
        10.05

    Reference: Ho et al. 2020, in the continuous form of Song et al. 2021 (arXiv:2011.13456, appendix C).
    """

    beta_min: Number = 0.1
    beta_max: Number = 20.0

    def __check_init__(self):
        if not is_traced(self) and not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"Linear: got beta_min={self.beta_min}, beta_max={self.beta_max}; pass 0 < beta_min <= beta_max."
            )

    def integral(self, t):
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * jnp.asarray(t))

    def inverse(self, integral):
        # The root of the quadratic in the form that adds, so that small times keep their digits.
        root = jnp.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * jnp.asarray(integral))
        return 2 * integral / (self.beta_min + root)


class Cosine(AbstractSchedule):
    """alpha(t) = cos(theta(t)) with theta linear in t, from sigma/alpha = `ratio_min` at t = 0 to `ratio_max` at t = 1.

    With `ratio_max=math.inf` nothing is left of the data at t = 1. B(t) = log(1 + tan^2 theta(t)).

    Arguments:
        ratio_min: Ratio sigma/alpha at t = 0.
        ratio_max: Ratio sigma/alpha at t = 1.

    Raises:
        ValueError: unless 0 < ratio_min < ratio_max.

    Example:
        >>> sde = sgm.VP(Cosine(ratio_max=1e4), t0=0.0)
        >>> round(float(sde.theta(0.5)), 3)  # about pi/4, in the middle
        0.786

    Reference: Nichol and Dhariwal 2021 (arXiv:2102.09672, eq. 17), with the bounded log-SNR of Ho and Salimans 2022
    (arXiv:2207.12598, section 2) in place of the offset s.
    """

    ratio_min: Number = 1e-3
    ratio_max: Number = 1e2

    def __check_init__(self):
        check_ratios("Cosine", self.ratio_min, self.ratio_max)

    def _angles(self):
        return jnp.arctan(self.ratio_min), jnp.arctan(1 / self.ratio_max)

    def integral(self, t):
        start, margin = self._angles()
        # theta and its complement pi/2 - theta are each a sum of positive parts, so that both ends keep their digits.
        slope = jnp.pi / 2 - start - margin
        theta, complement = start + slope * jnp.asarray(t), margin + slope * (1 - jnp.asarray(t))
        return jnp.log1p((jnp.sin(theta) / jnp.sin(complement)) ** 2)

    def inverse(self, integral):
        start, margin = self._angles()
        theta = jnp.arctan(jnp.sqrt(jnp.expm1(integral)))
        return (theta - start) / (jnp.pi / 2 - start - margin)


class PiecewiseConstant(AbstractSchedule):
    """A rate that is constant on each of N equal steps of [0, end].

    At the end of a step the rate is that of the step before, as a chain has it.

    Arguments:
        increments: Integrals of the rate over the steps, float64. They are kept as Python numbers outside the pytree's
            leaves, so that they keep their digits, and no optimiser finds them.
        end: Time at which the last step ends.

    Example:
        >>> sde = sgm.VP(PiecewiseConstant((0.1, 0.4, 9.5)), t0=0.01)
        >>> round(float(sde.schedule.integral(2 / 3)), 2)
        0.5
    """

    increments: tuple[float, ...] = eqx.field(static=True, converter=to_table)
    end: Number = 1.0

    @property
    def steps(self) -> int:
        """N."""
        return len(self.increments)

    def __pdoc__(self, **kwargs):
        return short_table("PiecewiseConstant", increments=self.increments, end=self.end)

    def integral(self, t):
        position = jnp.asarray(t, jnp.result_type(float)) * (self.steps / self.end)
        step = jnp.clip(jnp.ceil(position).astype(int) - 1, 0, self.steps - 1)
        increments, integrals = self._tables()
        share, increment = position - step.astype(position.dtype), increments[step]
        finite = jnp.isfinite(increment)
        # A step that removes all data (the last, beta = 1) does so as alpha falls linearly to zero.
        within = jnp.where(finite, share * jnp.where(finite, increment, 0.0), -2 * jnp.log1p(-share))
        return integrals[step] + within

    def inverse(self, integral):
        increments, integrals = self._tables()
        integral = jnp.asarray(integral, integrals.dtype)
        step = jnp.clip(jnp.searchsorted(integrals, integral) - 1, 0, self.steps - 1)
        increment, within = increments[step], integral - integrals[step]
        share = jnp.where(jnp.isfinite(increment), within / increment, -jnp.expm1(-0.5 * within))
        return (step.astype(integral.dtype) + share) * (self.end / self.steps)

    def _tables(self):
        increments = np.asarray(self.increments)
        integrals = np.concatenate([[0.0], np.cumsum(increments)])
        return tuple(jnp.asarray(table, jnp.result_type(float)) for table in (increments, integrals))
