"""Ancestral sampling of a posterior."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from sgm.checks import check_at_least, check_instance
from sgm.model.kernel import AbstractVariance, FixedSmall, posterior_mean
from sgm.posterior.method import AbstractPosteriorMethod, Draws, check_no_options
from sgm.posterior.path_evidence import AbstractPathEvidence
from sgm.sample import sample
from sgm.solve.grid import AbstractGrid, LogSNRGrid
from sgm.solve.sampler import AbstractSampler


class PosteriorAncestral(AbstractSampler, AbstractPosteriorMethod):
    """Ancestral sampling told of an example: u_s ~ N(mean, std^2) by `evidence.apply` of the reverse transition.

    One evaluation a step. It takes `Inpainting`, `Denoising` and `MatchedDenoising`. `sgm.sample_posterior` gives it
    the evidence. As a method of `sgm.sample` it is built with evidence about one example, of which all examples are
    draws.

    The path starts from the prior; that of 2015 starts from the observation, of which the steps keep no trace. The end
    that `sample` returns, E[x0 | u] at t0, is the model's alone, and moves known entries, which are exact in u: its
    `jnp.where(mask, known, x)` has them exact again, as the last step of 2015.

    Arguments:
        evidence: What is known of the example; None in `sgm.sample_posterior`, which is given it.
        steps: Number of steps.
        variance: Variance of the reverse transitions.
        grid: Times of the steps.

    Raises:
        ValueError: where the evidence is not of the shape of the model's examples.

    Example:
        >>> evidence = MatchedDenoising(observed, 0.3)
        >>> x = sgm.sample_posterior(sde, model, evidence, key, 8, method=PosteriorAncestral(steps=200))
    """

    evidence: AbstractPathEvidence | None = None
    steps: int = eqx.field(static=True, default=500)
    variance: AbstractVariance = FixedSmall()
    grid: AbstractGrid = LogSNRGrid()

    def __check_init__(self):
        kind = AbstractPathEvidence | None
        check_instance("PosteriorAncestral", "evidence", self.evidence, kind, "MatchedDenoising(observed, std)")
        check_at_least("PosteriorAncestral", "steps", self.steps)
        check_instance("PosteriorAncestral", "variance", self.variance, AbstractVariance, "sgm.model.FixedLarge()")

    @property
    def draws(self):
        return 1

    def standardised(self, units):
        return dataclasses.replace(self, evidence=self._told.standardised(units))

    def check(self, sde):
        self._told.check_levels(self.stepping.levels(sde))

    @property
    def _told(self):
        if self.evidence is None:
            raise ValueError(
                "PosteriorAncestral: there is no evidence; pass PosteriorAncestral(evidence) to sgm.sample, or the "
                "evidence to sgm.sample_posterior."
            )
        return self.evidence

    def takes(self, evidence):
        if isinstance(evidence, AbstractPathEvidence):
            return None
        return "pass Inpainting, Denoising or MatchedDenoising, or another method, such as MMPS()"

    def draw(self, sde, model, evidence, key, n, cond, options):
        check_no_options("PosteriorAncestral", options)

        def draws(y, key):
            method = dataclasses.replace(self, evidence=eqx.tree_at(lambda evidence: evidence.y, evidence, y))
            return sample(sde, model, key, n, cond=cond, method=method)

        return Draws(jax.vmap(draws)(evidence.y, jr.split(key, len(evidence.y))))

    def advance(self, predict, t, s, u, noise, memory):
        assert self.evidence is not None
        if self.evidence.y.shape != u.shape:
            raise ValueError(
                f"PosteriorAncestral: the evidence has shape {self.evidence.y.shape}, but the model is of examples of "
                f"shape {u.shape}; pass that of one example, and many to sgm.sample_posterior."
            )
        estimate = predict(t, u)
        std = jnp.exp(0.5 * self.variance.log_variance(s, t, estimate))
        mean, std = self.evidence.apply(s, posterior_mean(s, t, u, estimate.denoised), std)
        return mean + std * noise[0], memory
