"""Products of models."""

import jax.numpy as jnp

from sgm.checks import check_instance, is_traced
from sgm.model.base import AbstractModel, Estimate, check_alike
from sgm.sde.level import cos_of, sin_of
from sgm.types import Number


class Composed(AbstractModel):
    """A product of experts, with density proportional to p_1^w_1 p_2^w_2 ...

    Its score under the noise is taken for the weighted sum of the experts' scores, which it is in the limit of no
    noise. So the draws are not those of the product: they suit pictures, not posteriors. `Observations` combines
    independent observations.

    Arguments:
        models: Experts, of one shape and in the same units. They are given the same condition; `Conditioned` gives one
            a condition of its own.
        weights: Weight of each. With a sum of 1 the product is defined at pure noise as well.

    Raises:
        ValueError: for models of different shapes or units, and another number of weights.

    Example:
        >>> small, red = (Conditioned(model, sgm.Condition(label=label)) for label in (3, 7))
        >>> null = Conditioned(model, sgm.Condition(dropped=True))
        >>> both = Composed((small, red, null), (1.0, 1.0, -1.0))  # a model, for sgm.sample

    Reference: Liu et al. 2022 (arXiv:2206.01714); Du et al. 2023 (arXiv:2302.11552).
    """

    models: tuple[AbstractModel, ...]
    weights: tuple[Number, ...]

    def __check_init__(self):
        for model in self.models:
            check_instance("Composed", "models", model, AbstractModel, "(first, second)")
            check_alike("Composed", self.models[0], model)
        if not self.models or len(self.weights) != len(self.models):
            raise ValueError(
                f"Composed: there are {len(self.models)} models and {len(self.weights)} weights; pass one weight each."
            )

    @property
    def shape(self):
        return self.models[0].shape

    @property
    def units(self):
        return self.models[0].units

    @property
    def conditioning(self):
        return self.models[0].conditioning

    @property
    def defined_at_pure_noise(self):
        return self._sums_to_one and all(model.defined_at_pure_noise for model in self.models)

    @property
    def _sums_to_one(self):
        return not is_traced(self.weights) and abs(float(sum(self.weights)) - 1) < 1e-6

    def predict(self, level, u, cond=None, key=None):
        estimates = [model.predict(level, u, cond, key) for model in self.models]
        weighted = [
            [weight * part for part in (estimate.denoised, estimate.noise, estimate.velocity)]
            for weight, estimate in zip(self.weights, estimates, strict=True)
        ]
        denoised, noise, velocity = (jnp.sum(jnp.stack(parts), axis=0) for parts in zip(*weighted, strict=True))
        if not self._sums_to_one:
            rest, cos = 1 - sum(self.weights), cos_of(level)
            denoised, velocity = denoised + rest * u / cos, velocity - rest * sin_of(level) / cos * u
        return Estimate(denoised, noise, velocity)
