"""The entries of an example that are not observed, given those that are."""

import dataclasses
import operator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sgm.checks import check_finite, check_instance, check_tuple
from sgm.model.base import AbstractModel, AbstractWrapper, Estimate
from sgm.model.per_example import PerExample, number_of
from sgm.nn.condition import Condition
from sgm.nn.units import Units


class Unobserved(AbstractWrapper):
    """A model of the other entries of an example, given those that are observed: a conditional density of its own.

    `sgm.sample(sde, model, key, n, cond=Condition(observed=...))` draws whole examples. This model draws the unobserved
    entries alone, so that they have a density: `sgm.log_prob` takes it, and everything else that takes a model.

    Arguments:
        model: Model of whole examples of shape (variables,), trained with a masking.
        observed: Positions of the observed entries.
        values: Their values in the data's units, in that order; `PerExample(values)` gives each example its own.

    Raises:
        TypeError: for positions that are no integers.
        ValueError: for a model without entries that can be observed, positions that it has not, none or all of them,
            and other values than so many finite ones.

    Example:
        >>> rest = Unobserved(model, (0, 3), jnp.asarray([0.2, 1.4]))  # of a model of five entries
        >>> rest.unobserved
        (1, 2, 4)
        >>> log_p = sgm.log_prob(sde, rest, x[:, jnp.asarray(rest.unobserved)], trace=sgm.Exact())
    """

    model: AbstractModel
    observed: tuple[int, ...] = eqx.field(static=True)
    values: Float[Array, " observed"] | PerExample

    def __init__(self, model: AbstractModel, observed: tuple[int, ...], values: Any):
        check_instance("Unobserved", "model", model, AbstractModel, "sgm.ScoreModel(network, data=data)")
        if getattr(model.conditioning, "observed", None) is None:
            raise ValueError(
                "Unobserved: the model has no entries that can be observed; pass one of a Transformer built with "
                "Conditioning(observed=...) and trained with a masking."
            )
        observed, size = check_tuple("Unobserved", "observed", observed, operator.index, "(0, 3)"), model.shape[0]
        places = set(observed)
        if not 0 < len(places) < size or len(places) != len(observed) or not places <= set(range(size)):
            raise ValueError(
                f"Unobserved: observed = {observed}, but the examples have {size} entries; pass different positions "
                f"from 0 to {size - 1}, some but not all."
            )
        own = values.value if isinstance(values, PerExample) else (values := jnp.asarray(values))
        if own.shape[-1:] != (len(observed),) or own.ndim != (2 if isinstance(values, PerExample) else 1):
            raise ValueError(
                f"Unobserved: values have shape {own.shape}, but {len(observed)} entries are observed; pass as many."
            )
        check_finite("Unobserved", own, "values")
        self.model, self.observed, self.values = model, observed, values

    @property
    def unobserved(self) -> tuple[int, ...]:
        """Positions of the entries of this model in the whole example."""
        return tuple(place for place in range(self.model.shape[0]) if place not in self.observed)

    @property
    def shape(self):
        return (len(self.unobserved),)

    @property
    def units(self):
        places, units = jnp.asarray(self.unobserved), self.model.units
        mean, std = (jnp.broadcast_to(part.value, self.model.shape)[places] for part in (units.mean, units.std))
        return Units(mean, std)

    @property
    def conditioning(self):
        whole = self.model.conditioning
        return dataclasses.replace(whole, observed=None)

    def predict(self, level, u, cond=None, key=None):
        places = jnp.asarray(self.unobserved)
        values = jnp.asarray(number_of("Unobserved", self.values))
        known = jnp.full(self.model.shape, jnp.nan, values.dtype).at[jnp.asarray(self.observed)].set(values)
        whole = dataclasses.replace(Condition() if cond is None else cond, observed=known)
        # The network reads the observed values in the place of these zeros.
        estimate = self.model.predict(level, jnp.zeros(self.model.shape, u.dtype).at[places].set(u), whole, key)
        log_variance = None if estimate.log_variance is None else estimate.log_variance[places]
        return Estimate(estimate.denoised[places], estimate.noise[places], estimate.velocity[places], log_variance)
