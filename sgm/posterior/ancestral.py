"""Ancestral sampling of a posterior."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_count, check_instance
from sgm.model.kernel import AbstractVariance, FixedSmall, posterior_mean
from sgm.posterior.path_evidence import AbstractPathEvidence
from sgm.solve.grid import AbstractGrid, LogSNRGrid
from sgm.solve.sampler import AbstractSampler


class PosteriorAncestral(AbstractSampler):
    """Ancestral sampling told of an example: u_s ~ N(mean, std^2) by `evidence.apply` of the reverse transition.

    One evaluation a step. The evidence is of one example, and the `n` examples of `sgm.sample` are all draws of its
    posterior. `sgm.sample_posterior(..., method=ToldTransitions())` takes many observations.

    The path starts from the prior; that of 2015 starts from the observation, of which the steps keep no trace. The end
    that `sample` returns, E[x0 | u] at t0, is the model's alone, and moves known entries, which are exact in u: its
    `jnp.where(mask, known, x)` has them exact again, as the last step of 2015.

    Arguments:
        evidence: What is known of the example.
        steps: Number of steps.
        variance: Variance of the reverse transitions.
        grid: Times of the steps.

    Raises:
        TypeError: for what is no path evidence or no variance, and a number of steps that is no integer.
        ValueError: for fewer than one step; when it is used, for evidence of another shape than the model's examples,
            and for levels at which the evidence cannot be told.

    Example:
        >>> evidence = MatchedDenoising(jnp.asarray([0.2, 1.0]), std=0.3)
        >>> x = sgm.sample(sde, model, key, 8, method=PosteriorAncestral(evidence, steps=20))
    """

    evidence: AbstractPathEvidence
    steps: int = eqx.field(static=True, default=500)
    variance: AbstractVariance = FixedSmall()
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        kind = AbstractPathEvidence
        check_instance("PosteriorAncestral", "evidence", self.evidence, kind, "MatchedDenoising(observed, std)")
        check_count("PosteriorAncestral", "steps", self.steps)
        check_instance("PosteriorAncestral", "variance", self.variance, AbstractVariance, "sgm.model.FixedLarge()")

    @property
    def draws(self):
        return 1

    def standardised(self, units):
        return dataclasses.replace(self, evidence=self.evidence.standardised(units))

    def check(self, sde):
        self.evidence.check_levels(self.stepping.levels(sde))

    def advance(self, predict, t, s, u, noise, memory):
        if self.evidence.y.shape != u.shape:
            raise ValueError(
                f"PosteriorAncestral: the evidence has shape {self.evidence.y.shape}, but the model is of examples of "
                f"shape {u.shape}; pass that of one example, and several to sgm.sample_posterior."
            )
        estimate = predict(t, u)
        std = jnp.exp(0.5 * self.variance.log_variance(s, t, estimate))
        mean, std = self.evidence.apply(s, posterior_mean(s, t, u, estimate.denoised), std)
        return mean + std * noise[0], memory
