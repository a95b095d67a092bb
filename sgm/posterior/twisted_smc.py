"""Twisted sequential Monte Carlo."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from sgm.checks import check_count, is_traced, trace_floats
from sgm.model.kernel import AbstractVariance, FixedLarge, posterior_mean
from sgm.posterior.evidence import with_y
from sgm.posterior.exactly import Exactly
from sgm.posterior.method import AbstractPosteriorMethod, Draws, check_unused, has_one_each
from sgm.posterior.twist import twist_of
from sgm.random import normal
from sgm.sde.level import LARGEST_LEVEL
from sgm.solve.grid import AbstractGrid, FixedSteps, LogSNRGrid
from sgm.types import Number

_AGREEMENT = 0.25  # nats: standard deviation of the runs' log-evidences, above which their error is not known.


class TwistedSMC(AbstractPosteriorMethod):
    """Sequential Monte Carlo: particles on ancestral steps, drawn towards the evidence and weighted for it.

    A particle u at level t has the weight of a twisting function, an approximation of p(y | u). It is led by the
    gradient of its logarithm, and the weights correct for what that changes. So draws become exact as the number of
    particles grows, for any twist. With Gaussian noise the twist is

        log N(y; A x0, var + A C A^T),        x0 = E[x0 | u]

    with C the covariance of x0 given u by Tweedie's formula, or sin(theta)^2 I, that of white data, where y has more
    entries than `most_products`. Of other likelihoods it is log p(y | x0) at the estimate. The mean of the weights
    estimates p(y), up to the constant of a `Custom` likelihood. Its standard error has two parts: how far independent
    runs are apart, and how far runs of half the particles and half the steps are from them. So it tells what the steps
    leave out, and what too few particles never find. It is inf where the runs are so far apart that too few particles
    are in the right places.

    Arguments:
        particles: Number of particles of a run.
        runs: Number of independent runs, 2 or more for a standard error.
        steps: Number of ancestral steps.
        threshold: Effective number of particles, as a share of all, below which they are resampled.
        most_products: Largest number of products with the Jacobian of the model that an evaluation may take.
        variance: Variance of the reverse transitions. `FixedLarge()` is that of white data.
        grid: Levels of the steps.

    Raises:
        TypeError: for a count that is no integer.
        ValueError: for particles, runs or steps below 1, a negative most_products, and a threshold outside [0, 1].

    Example:
        >>> evidence = Linear(Mask(jnp.asarray([True, False])), jnp.asarray([1.0]), std=0.1)
        >>> draws = sgm.sample_posterior(sde, model, evidence, key, 8, method=TwistedSMC(64, steps=20), full=True)
        >>> bits = draws.log_evidence / np.log(2), draws.stderr / np.log(2)  # log p(y) and its standard error

    Reference: Wu et al. 2023 (arXiv:2306.17775, algorithm 1).
    """

    particles: int = eqx.field(static=True, default=512)
    runs: int = eqx.field(static=True, default=4)
    steps: int = eqx.field(static=True, default=200)
    threshold: Number = 0.5
    most_products: int = eqx.field(static=True, default=16)
    variance: AbstractVariance = FixedLarge()
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        for name in ("particles", "runs", "steps"):
            check_count("TwistedSMC", name, getattr(self, name))
        check_count("TwistedSMC", "most_products", self.most_products, 0)
        if not is_traced(self.threshold) and not 0 <= self.threshold <= 1:
            raise ValueError(f"TwistedSMC: threshold = {self.threshold}; pass 0 <= threshold <= 1.")

    def takes(self, evidence):
        if isinstance(evidence, Exactly):
            return "pass Linear(Mask(mask), y, std), since entries without noise have no likelihood"
        return super().takes(evidence)

    def draw(self, sde, model, evidence, key, n, *, cond, batch_size, mesh):
        check_unused("TwistedSMC", batch_size=batch_size, mesh=mesh)
        count = len(evidence.y)
        keys = jr.split(key, count)
        levels, half_levels = (
            jnp.minimum(FixedSteps(steps, self.grid).levels(sde), LARGEST_LEVEL)
            for steps in (self.steps, math.ceil(self.steps / 2))
        )
        shared = *trace_floats((model, self)), levels, half_levels

        def row(tree, place):
            return jax.tree.map(lambda part: part[place], tree)

        has_own = has_one_each(model, cond, count)
        draws = [
            _draw(shared, keys[place], with_y(evidence, evidence.y[place]), row(cond, place) if has_own else cond, n)
            for place in range(count)
        ]
        return jax.tree.map(lambda *parts: jnp.stack(parts), *draws)


@eqx.filter_jit
def _draw(shared, key, evidence, cond, n):
    model, method, levels, half_levels = shared
    key_runs, key_draws, key_twist = jr.split(key, 3)
    twist = twist_of(evidence, model, normal(key_twist, model.shape), method.most_products)

    def estimates(particles, levels, key):
        def run(key):
            return _run(model, method, twist, particles, levels, evidence, cond, key)

        return jax.lax.map(run, jr.split(key, method.runs))

    x0, log_weights, log_evidences = estimates(method.particles, levels, key_runs)
    # A run is drawn from as often as its estimate of the evidence says.
    total = (jax.nn.log_softmax(log_weights, axis=1) + log_evidences[:, None]).reshape(-1)
    chosen = jr.permutation(jr.fold_in(key_draws, 1), _systematic(key_draws, total, n))
    x = model.units.restore(x0.reshape(-1, *model.shape)[chosen])
    log_evidence, stderr = _log_mean(log_evidences), jnp.asarray(jnp.nan)
    if method.runs > 1:
        _, _, halved = estimates(math.ceil(method.particles / 2), half_levels, jr.fold_in(key_runs, 1))
        ratios = jnp.exp(log_evidences - log_evidence)
        far = _log_mean(halved) - log_evidence
        # Runs that differ by more are led by their luckiest particles, and all may lack what a few would have found.
        agree = jnp.maximum(jnp.std(log_evidences, ddof=1), jnp.std(halved, ddof=1)) <= _AGREEMENT
        stderr = jnp.where(agree, jnp.sqrt(jnp.var(ratios, ddof=1) / method.runs + far**2), jnp.inf)
    return Draws(x, log_evidence, stderr)


def _run(model, method, twist, particles, levels, evidence, cond, key):
    """Particles x0, their log-weights, and log p(y)."""
    key_start, key_steps = jr.split(key)
    u = normal(key_start, (particles, *model.shape))

    def twisted(level, u):
        return twist(model, level, u, cond)

    estimate, value, change = jax.vmap(twisted, (None, 0))(levels[0], u)
    state = u, estimate, value, change, value, jnp.zeros((), u.dtype)

    def step(state, each):
        t, s, key = each
        key_resample, key_noise = jr.split(key)
        u, estimate, value, change, log_weights, log_evidence = state
        share = jax.nn.softmax(log_weights)
        resampled = 1 / jnp.sum(share**2) < method.threshold * particles
        kept = jnp.where(resampled, _systematic(key_resample, log_weights, particles), jnp.arange(particles))
        log_evidence = log_evidence + jnp.where(resampled, _log_mean(log_weights), 0.0)
        log_weights = jnp.where(resampled, 0.0, log_weights)
        u, estimate, value, change = jax.tree.map(lambda leaf: leaf[kept], (u, estimate, value, change))

        def move(u, estimate, change, key):
            std = jnp.exp(0.5 * method.variance.log_variance(s, t, estimate))
            noise = normal(key, u.shape, u.dtype)
            mean = posterior_mean(s, t, u, estimate.denoised)
            moved = posterior_mean(s, t, u, estimate.denoised + change) - mean
            ratio = -jnp.sum(moved * noise / std + 0.5 * (moved / std) ** 2)
            return mean + moved + std * noise, ratio

        u, ratio = jax.vmap(move)(u, estimate, change, jr.split(key_noise, particles))
        estimate, new, change = jax.vmap(twisted, (None, 0))(s, u)
        log_weights = log_weights + ratio + new - value
        return (u, estimate, new, change, log_weights, log_evidence), None

    keys = jr.split(key_steps, len(levels) - 1)
    state, _ = jax.lax.scan(step, state, (levels[:-1], levels[1:], keys))
    _, estimate, value, _, log_weights, log_evidence = state
    last = jax.vmap(lambda z: evidence.log_likelihood(model.units.restore(z)))(estimate.denoised)
    log_weights = log_weights + last - value
    return estimate.denoised, log_weights, log_evidence + _log_mean(log_weights)


def _systematic(key, log_weights, n):
    """Positions of `n` draws, each of as many copies as its weight says, up to one."""
    ends = jnp.cumsum(jax.nn.softmax(log_weights))
    places = (jnp.arange(n, dtype=ends.dtype) + jr.uniform(key, dtype=ends.dtype)) / n
    return jnp.minimum(jnp.searchsorted(ends, places * ends[-1]), len(ends) - 1)


def _log_mean(log_weights):
    return jax.nn.logsumexp(log_weights) - math.log(len(log_weights))
