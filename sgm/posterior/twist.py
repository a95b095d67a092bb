"""Twisting functions: approximations of p(y | u) that lead and weight the particles of `TwistedSMC`."""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.model.base import AbstractModel, Estimate
from sgm.nn.condition import Condition
from sgm.posterior.evidence import AbstractGaussianLikelihood, AbstractLikelihood, Linearised
from sgm.posterior.linear import Linear
from sgm.posterior.nonlinear import Nonlinear
from sgm.posterior.tweedie import estimate_and_covariance
from sgm.sde.level import sin_of
from sgm.types import Example, Scalar


class AbstractTwist(eqx.Module):
    """An approximation of log p(y | u)."""

    evidence: eqx.AbstractVar[AbstractLikelihood]

    @abstractmethod
    def __call__(
        self, model: AbstractModel, level: Scalar, u: Example, cond: Condition | None
    ) -> tuple[Estimate, Scalar, Example]:
        """Evaluate it.

        Returns:
            The model's estimate, the logarithm of the twist in nats, and how far its gradient moves the estimate of x0.
        """


class Plugged(AbstractTwist):
    """p(y | x0) at the estimate of x0, of any likelihood."""

    evidence: AbstractLikelihood

    def __call__(self, model, level, u, cond):
        def value_of(x0):
            return self.evidence.log_likelihood(model.units.restore(x0))

        estimate, covariance = estimate_and_covariance(model, level, u, cond)
        value, gradient = jax.value_and_grad(value_of)(estimate.denoised)
        return estimate, value, covariance(gradient)


class White(AbstractTwist):
    """N(y; A x0, var + sin(theta)^2 A A^T): the covariance of white data, with A as it is at one example.

    Arguments:
        evidence: Evidence with Gaussian noise of a known variance.
        values: Eigenvalues of A A^T / var.
        vectors: Eigenvectors.
    """

    evidence: AbstractGaussianLikelihood
    values: Float[Array, " m"]
    vectors: Float[Array, "m m"]

    def __init__(self, evidence, model, z):
        near = evidence.linearised(z, model.units)
        rows = _rows(near, lambda v: v)
        values, self.vectors = jnp.linalg.eigh(rows)
        self.evidence, self.values = evidence, jnp.maximum(values, 0)

    def __call__(self, model, level, u, cond):
        estimate, covariance = estimate_and_covariance(model, level, u, cond)
        near = self.evidence.linearised(estimate.denoised, model.units)
        spread = 1 + sin_of(level) ** 2 * self.values
        value, weights = _gaussian(near, spread, self.vectors, self.evidence.y)
        return estimate, value, covariance(near.pull(weights))


class Matched(AbstractTwist):
    """N(y; A x0, var + A C A^T), with C the covariance of x0 given u by Tweedie's formula: exact of Gaussian data."""

    evidence: AbstractGaussianLikelihood

    def __call__(self, model, level, u, cond):
        estimate, covariance = estimate_and_covariance(model, level, u, cond)
        near = self.evidence.linearised(estimate.denoised, model.units)
        values, vectors = jnp.linalg.eigh(_rows(near, covariance))
        value, weights = _gaussian(near, 1 + jnp.maximum(values, 0), vectors, self.evidence.y)
        return estimate, value, covariance(near.pull(weights))


def twist_of(evidence: AbstractLikelihood, model: AbstractModel, z: Example, most: int) -> AbstractTwist:
    """The twist of a likelihood.

    Arguments:
        evidence: Likelihood.
        model: Model.
        z: Example, in standardised coordinates, at which a likelihood is linearised.
        most: Most products with the Jacobian of the model that an evaluation may take.
    """
    if not isinstance(evidence, Linear | Nonlinear):
        return Plugged(evidence)
    return Matched(evidence) if evidence.y.size <= most else White(evidence, model, z)


def _rows(near: Linearised, covariance):
    """A C A^T, in units of the noise."""
    root = jnp.sqrt(near.variance)
    basis = jnp.eye(root.size, dtype=root.dtype).reshape(root.size, *root.shape)
    rows = jax.vmap(lambda w: (near.push(covariance(near.pull(w / root))) / root).reshape(-1))(basis)
    return (rows + rows.T) / 2


def _gaussian(near, spread, vectors, y):
    """The log-density of the residual, of covariance `spread` in units of the noise, and minus its gradient."""
    root = jnp.sqrt(near.variance)
    turned = vectors.T @ (near.residual / root).reshape(-1)
    constant = jnp.sum(jnp.where(jnp.isfinite(y), jnp.log(2 * math.pi * near.variance), 0.0))
    value = -0.5 * (jnp.sum(turned**2 / spread) + jnp.sum(jnp.log(spread)) + constant)
    return value, (vectors @ (turned / spread)).reshape(root.shape) / root
