"""Schedules from a rate beta(t) alone."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgm.sde.schedules import AbstractSchedule
from sgm.types import OfTime, Time

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_HALVINGS = 40  # Of the interval in which the inverse lies, of which float32 can tell 2^24 parts.


class AbstractRate(AbstractSchedule):
    """A schedule that is told by its rate beta(t) >= 0. Its integral is found by quadrature, its inverse by bisection.

    The quadrature has 32 nodes of Gauss and Legendre on [0, t], which is exact to rounding for a smooth rate. Both are
    differentiable, by t and by what the rate is made of.

    Example:
        >>> class Sine(AbstractRate):
        ...     largest: float = 20.0
        ...
        ...     def rate(self, t):
        ...         return 0.1 + self.largest * jnp.sin(jnp.pi * t / 2) ** 2
        >>> sde = sgm.VP(Sine())
    """

    @property
    def end(self) -> float:
        """The largest time at which the rate is asked for."""
        return 1.0

    @abstractmethod
    def rate(self, t: Time) -> OfTime:
        """beta(t), elementwise."""

    def integral(self, t):
        t = jnp.asarray(t, jnp.result_type(float))
        nodes, weights = (jnp.asarray(part, t.dtype) for part in ((_NODES + 1) / 2, _WEIGHTS / 2))
        return t * jnp.sum(weights * self.rate(t[..., None] * nodes), axis=-1)

    def inverse(self, integral):
        integral = jnp.asarray(integral, jnp.result_type(float))
        fixed, wanted = jax.lax.stop_gradient((_arrays(self), integral))

        def halve(_, ends):
            low, high = ends
            # Small times keep their digits by the geometric mean.
            middle = jnp.sqrt(low * high)
            below = eqx.combine(fixed, self).integral(middle) < wanted
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low = jnp.full_like(wanted, 1e-12)
        t, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (low, jnp.full_like(wanted, self.end)))
        # One step of Newton, which has the derivatives of the inverse.
        return t + (integral - self.integral(t)) / jax.lax.stop_gradient(self.rate(t))


def _arrays(tree):
    return eqx.filter(tree, eqx.is_inexact_array)
