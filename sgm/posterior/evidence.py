"""What evidence about an example is."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.checks import is_traced
from sgm.nn.units import Units
from sgm.types import Example

Evidence = TypeVar("Evidence", bound="AbstractEvidence")


class AbstractEvidence(eqx.Module):
    """What is known of one example besides the model. It is in the data's units.

    Many observations have leading axes on `y`, and are told apart by its shape.
    """

    y: eqx.AbstractVar[Array]
    """The observation."""

    @abstractmethod
    def observation_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the observation of one example of `shape`."""

    def batch_axes(self, call: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The leading axes of many observations of examples of `shape`, () of one.

        Raises:
            ValueError: for an observation of another shape.
        """
        own = self.observation_shape(shape)
        axes = self.y.shape[: self.y.ndim - len(own)] if self.y.ndim >= len(own) else None
        if axes is None or self.y.shape != axes + own:
            raise ValueError(
                f"{call}: y has shape {self.y.shape}, but {type(self).__name__} makes an observation of shape {own} of "
                f"an example of shape {shape}; pass y of that shape, or batch axes in front of it."
            )
        return axes

    def check(self, call: str, shape: tuple[int, ...]) -> None:
        """Raise ValueError where it is no evidence about examples of `shape`, or has infinite entries."""
        self.batch_axes(call, shape)
        if not is_traced(self.y) and np.any(np.isinf(self.y)):
            raise ValueError(f"{call}: y has infinite entries; pass finite ones, and nan where nothing was measured.")

    def complete(self, x: Example) -> Example:
        """A draw of the posterior, with what is known exactly put in its place."""
        return x


def check_std(call: str, std: Float[Array, "..."], exact: str = "Exactly(mask, known)") -> None:
    """Raise ValueError for a standard deviation that is not positive; `exact` is the evidence without noise."""
    if not is_traced(std) and not np.all(np.asarray(std) > 0):
        raise ValueError(f"{call}: std = {std}; pass std > 0, or {exact} for entries known exactly.")


def check_mask(call: str, mask: Array, known: Array) -> None:
    """Raise ValueError for a mask that is not boolean, and for a known example, or several, of another shape."""
    if mask.dtype != jnp.bool_ or known.shape[max(0, known.ndim - mask.ndim) :] != mask.shape:
        raise ValueError(
            f"{call}: mask has shape {mask.shape} and dtype {mask.dtype}, known has shape {known.shape}; pass a "
            "boolean mask of the shape of one example."
        )


def with_y(evidence: Evidence, y: Any) -> Evidence:
    """The evidence with another `y`, or with None where each example is to have its own."""
    return eqx.tree_at(lambda evidence: evidence.y, evidence, y, is_leaf=lambda leaf: leaf is None)


class AbstractLikelihood(AbstractEvidence):
    """Evidence by its likelihood p(y | x)."""

    @abstractmethod
    def log_likelihood(self, x: Example) -> Float[Array, ""]:
        """log p(y | x) of one example, in nats."""


@dataclasses.dataclass(frozen=True)
class Linearised:
    """A likelihood near an example x, N(y; predicted + A dz, variance), with dx = std dz in standardised coordinates.

    Entries of y that are nan have no part in it.

    Arguments:
        residual: y - predicted; 0 where y is nan.
        variance: Variance of the noise; 1 where y is nan.
        push: Function dz -> A dz.
        pull: Function w -> A^T w.
    """

    residual: Array
    variance: Array
    push: Callable[[Example], Array]
    pull: Callable[[Array], Example]


class AbstractGaussianLikelihood(AbstractLikelihood):
    """y = predicted(x) + noise, with independent Gaussian noise; nan where nothing was measured."""

    @abstractmethod
    def predicted(self, x: Example) -> Array:
        """The observation without noise."""

    @abstractmethod
    def noise_variance(self, predicted: Array) -> Array:
        """Variance of the noise, of the shape of y or broadcast to it."""

    def observation_shape(self, shape):
        return jax.eval_shape(self.predicted, jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape

    def log_likelihood(self, x):
        seen, predicted = jnp.isfinite(self.y), self.predicted(x)
        variance = jnp.where(seen, self.noise_variance(predicted), 1.0)
        square = jnp.where(seen, jnp.where(seen, self.y, 0.0) - predicted, 0.0) ** 2 / variance
        return -0.5 * jnp.sum(jnp.where(seen, square + jnp.log(2 * jnp.pi * variance), 0.0))

    def linearised(self, z: Example, units: Units) -> Linearised:
        """The likelihood near a standardised example, to first order."""

        def of_standardised(z):
            return self.predicted(units.restore(z))

        predicted, pull = jax.vjp(of_standardised, z)
        push = jax.linearize(of_standardised, z)[1]
        seen = jnp.isfinite(self.y)
        residual = jnp.where(seen, jnp.where(seen, self.y, 0.0) - predicted, 0.0)
        variance = jnp.where(seen, self.noise_variance(predicted), 1.0)

        def push_seen(dz):
            return jnp.where(seen, push(dz), 0.0)

        def pull_seen(w):
            return pull(jnp.where(seen, w, 0.0))[0]

        return Linearised(residual, variance, push_seen, pull_seen)
