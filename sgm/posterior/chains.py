"""Posteriors by chains of draws, one for each example that is drawn."""

import functools
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from sgm.checks import trace_floats, trace_process
from sgm.model.base import AbstractModel, estimate_of
from sgm.nn.condition import Condition
from sgm.nn.units import Units
from sgm.parallel.devices import mesh_for, replicate
from sgm.parallel.spread import group_size, in_groups, spread
from sgm.posterior.evidence import AbstractLikelihood, with_y
from sgm.posterior.exactly import Exactly
from sgm.posterior.linear import Linear
from sgm.posterior.method import AbstractPosteriorMethod, Draws, has_one_each, repeated
from sgm.posterior.solve import solve
from sgm.random import normal
from sgm.sde.base import AbstractSDE
from sgm.solve.sampler import AbstractSampler
from sgm.types import Example, Number, Scalar

_SHRINKS = 100  # Largest number of tries of a move of the slice sampler.


class AbstractChains(AbstractPosteriorMethod):
    """A method that draws each example by a chain of its own."""

    @abstractmethod
    def draw_one(
        self,
        sde: AbstractSDE,
        model: AbstractModel,
        evidence: AbstractLikelihood,
        cond: Condition | None,
        key: PRNGKeyArray,
    ) -> Example:
        """One draw, in standardised coordinates."""

    def draw(self, sde, model, evidence, key, n, *, cond, batch_size, mesh):
        call, count = type(self).__name__, len(evidence.y)
        total = count * n
        own_cond, cond = (repeated(cond, n), None) if has_one_each(model, cond, count) else (None, cond)
        each = jr.split(key, total), repeated(evidence.y, n), own_cond
        shared = trace_process(sde), *trace_floats((model, with_y(evidence, None), self)), cond
        mesh = mesh_for(call, (shared, each), mesh)
        shared, each = replicate((shared, each), mesh)
        size = group_size(model.shape) if batch_size is None else batch_size
        return Draws(_draw(shared, each, size, mesh).reshape(count, n, *model.shape))


@eqx.filter_jit
def _draw(shared, each, size, mesh):
    def of_one(shared, each):
        sde, model, evidence, method, cond = shared
        key, y, own_cond = each
        cond = cond if own_cond is None else own_cond
        return model.units.restore(method.draw_one(sde, model, with_y(evidence, y), cond, key))

    def of_rows(shared, each):
        return in_groups(jax.vmap(functools.partial(of_one, shared)), each, size)

    return spread(of_rows, shared, each, mesh)


def follow(
    sampler: AbstractSampler,
    model: AbstractModel,
    cond: Condition | None,
    u: Example,
    start: Scalar,
    end: Scalar,
    key: PRNGKeyArray,
) -> Example:
    """Lead u from the level `start` to the level `end`, in as many steps as the sampler has, even in log-SNR.

    Returns:
        The estimate of x0 at the end.
    """
    levels = jnp.linspace(start, end, sampler.steps + 1)

    def predict(level, u):
        return estimate_of(model, level, u, cond)

    def step(state, each):
        u, memory = state
        t, s, key = each
        noise = normal(key, (sampler.draws, *u.shape), u.dtype)
        return sampler.advance(predict, t, s, u, noise, memory), None

    keys = jr.split(key, sampler.steps)
    (u, _), _ = jax.lax.scan(step, (u, sampler.memory(u)), (levels[:-1], levels[1:], keys))
    return predict(end, u).denoised


def draw_likelihood(
    evidence: AbstractLikelihood,
    units: Units,
    mean: Example,
    std: Number,
    key: PRNGKeyArray,
    iterations: int,
    moves: int,
) -> Example:
    """Draw z from N(z; mean, std^2 I) p(y | z), in standardised coordinates.

    Linear observations are drawn exactly, by conditioning a draw of both x and y (Matheron's rule). Others are drawn by
    a chain of elliptical slice sampling that starts from `mean`.

    Arguments:
        evidence: Likelihood.
        units: Units of the data.
        mean: Mean of the Gaussian factor.
        std: Standard deviation of it.
        key: Key.
        iterations: Largest number of iterations of conjugate gradients, for linear observations.
        moves: Number of moves of the slice sampler, for others.

    Reference: Murray et al. 2010 (arXiv:1001.0175).
    """
    if isinstance(evidence, Linear | Exactly):
        key_x, key_y = jr.split(key)
        z = mean + std * normal(key_x, mean.shape, mean.dtype)
        likelihood = evidence.linearised(z, units)
        noise = jnp.sqrt(likelihood.variance) * normal(key_y, likelihood.residual.shape, mean.dtype)
        seen = jnp.isfinite(evidence.y)

        def matrix(w):
            return std**2 * likelihood.push(likelihood.pull(w))

        residual = jnp.where(seen, likelihood.residual - noise, 0.0)
        return z + std**2 * likelihood.pull(solve(matrix, likelihood.variance, residual, iterations))

    def log_likelihood(z):
        return evidence.log_likelihood(units.restore(z))

    def move(z, key):
        key_direction, key_height, key_angle, key_tries = jr.split(key, 4)
        direction = std * normal(key_direction, z.shape, z.dtype)
        height = log_likelihood(z) + jnp.log(jr.uniform(key_height, dtype=z.dtype))
        first = jr.uniform(key_angle, dtype=z.dtype) * 2 * jnp.pi

        def at(angle):
            return mean + (z - mean) * jnp.cos(angle) + direction * jnp.sin(angle)

        def rejected(state):
            angle, _, _, tries = state
            return (log_likelihood(at(angle)) <= height) & (tries < _SHRINKS)

        def shrink(state):
            angle, low, high, tries = state
            low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
            share = jr.uniform(jr.fold_in(key_tries, tries), dtype=z.dtype)
            return low + share * (high - low), low, high, tries + 1

        angle, _, _, tries = jax.lax.while_loop(rejected, shrink, (first, first - 2 * jnp.pi, first, 0))
        return jnp.where(tries < _SHRINKS, at(angle), z), None

    return jax.lax.scan(move, mean, jr.split(key, moves))[0]
