"""Classifier-free guidance."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from sgm.checks import check_instance, is_traced
from sgm.model.base import AbstractModel, AbstractModifier
from sgm.model.per_example import PerExample, number_of
from sgm.nn.condition import Condition
from sgm.types import Number


class ClassifierFree(AbstractModifier):
    """A conditional model that is driven away from its learned null: (1 + weight) conditioned - weight null.

    With `rescale` phi, x0 is then multiplied by phi std(x0 conditioned) / std(x0) + 1 - phi, with standard deviations
    over the entries of an example. It takes a model that is trained with `Loss(condition_dropout=0.1)`. Inside the
    interval each step costs two evaluations, outside it one. What is drawn is of no simple density: the samples are
    more typical of their condition than the data, and less diverse.

    Arguments:
        model: Conditional model with a null.
        weight: Weight; 0 is the model itself. `PerExample(weights)` gives each example its own.
        interval: Noise levels sigma/alpha = tan(theta), of standardised data, between which it acts.
        rescale: Share phi of the rescaling to the standard deviation of the conditioned estimate, 0 ... 1.

    Raises:
        ValueError: for a model without a null, an interval that is empty, and rescale outside [0, 1].

    Example:
        >>> guided = ClassifierFree(model, weight=3.0, interval=(0.3, 3.0))
        >>> x = sgm.sample(sde, guided, key, 10, cond=sgm.Condition(label=jnp.arange(10)), method=sgm.DDIM(10))

    Reference: Ho and Salimans 2022 (arXiv:2207.12598); Kynkäänniemi et al. 2024 (arXiv:2404.07724); Lin et al. 2023
    (arXiv:2305.08891, section 3.4).
    """

    model: AbstractModel
    weight: Number | PerExample = 1.0
    interval: tuple[Number, Number] = (0.0, math.inf)
    rescale: Number = 0.0

    def __check_init__(self):
        check_instance("ClassifierFree", "model", self.model, AbstractModel, "sgm.ScoreModel(network, data=data)")
        conditioning = self.model.conditioning
        if conditioning is not None and not conditioning.null:
            raise ValueError(
                "ClassifierFree: the model has learned no null to be driven away from; train one with "
                "Loss(condition_dropout=0.1) and a network for Conditioning(..., null=True)."
            )
        low, high = self.interval
        if not is_traced((low, high)) and not low < high:
            raise ValueError(f"ClassifierFree: interval = {self.interval}; pass (low, high) with low < high.")
        if not is_traced(self.rescale) and not 0 <= self.rescale <= 1:
            raise ValueError(f"ClassifierFree: rescale = {self.rescale}; pass 0 <= rescale <= 1.")

    def predict(self, level, u, cond=None, key=None):
        if cond is None:
            raise ValueError("ClassifierFree: there is no condition; pass cond, or sample the model itself.")
        conditioned = self.model.predict(level, u, cond, key)
        low, high = (jnp.log(jnp.asarray(end, level.dtype)) for end in self.interval)

        def guided():
            null = self.model.predict(level, u, _dropped(cond), key)
            estimate = conditioned.extrapolated(null, number_of("ClassifierFree", self.weight))
            # To the spread of the conditioned estimate, which large weights widen.
            found, wanted = jnp.var(estimate.denoised), jnp.var(conditioned.denoised)
            spread = (found > 0) & (wanted > 0)
            ratio = jnp.sqrt(jnp.where(spread, wanted, 1.0) / jnp.where(spread, found, 1.0))
            return estimate.moved(level, self.rescale * (ratio - 1) * estimate.denoised)

        # Of levels that examples share, the branch that is not taken costs nothing.
        return jax.lax.cond((low < level) & (level <= high), guided, lambda: conditioned)


def _dropped(cond: Condition) -> Condition:
    dropped = jnp.ones((), bool) if cond.dropped is None else jnp.ones_like(cond.dropped)
    return dataclasses.replace(cond, dropped=dropped)
