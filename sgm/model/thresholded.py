"""A model whose estimate is clipped to a range of its own, and scaled back."""

import dataclasses
import math

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_at_least, check_instance, is_traced
from sgm.model.base import AbstractModel, AbstractModifier
from sgm.types import Number


class Thresholded(AbstractModifier):
    """Dynamic thresholding: the denoised estimate is clipped to a quantile of its own, and scaled into [low, high].

    With y = (x0 - (low + high)/2) / ((high - low)/2) and s = max(1, quantile of |y| over all entries), at most
    `largest`, y becomes clip(y, -s, s) / s. Strong guidance drives many entries out of range; `Clipped` would leave
    them saturated.

    Arguments:
        model: Model.
        quantile: Share of the entries that are not clipped.
        low: Lower end of the data's range, in their units.
        high: Upper end of the data's range, in their units.
        largest: Largest s; with 1 it clips.
        moves_noise: Whether noise and velocity follow the denoised estimate (see `Clipped`).

    Raises:
        ValueError: for a quantile outside (0, 1], low >= high, and largest < 1.

    Example:
        >>> model = Thresholded(ClassifierFree(model, weight=4.0), low=0.0, high=255.0)  # grey levels

    Reference: Saharia et al. 2022 (Imagen, arXiv:2205.11487, section 2.3).
    """

    model: AbstractModel
    quantile: Number = 0.995
    low: Number = -1.0
    high: Number = 1.0
    largest: Number = math.inf
    moves_noise: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_instance("Thresholded", "model", self.model, AbstractModel, "sgm.ScoreModel(network, shape=(28, 28, 1))")
        if not is_traced(self.quantile) and not 0 < self.quantile <= 1:
            raise ValueError(f"Thresholded: quantile = {self.quantile}; pass 0 < quantile <= 1.")
        if not is_traced((self.low, self.high)) and not self.low < self.high:
            raise ValueError(f"Thresholded: low = {self.low}, high = {self.high}; pass low < high.")
        check_at_least("Thresholded", "largest", self.largest)

    def predict(self, level, u, cond=None, key=None):
        estimate = self.model.predict(level, u, cond, key)
        low, high = self.units.standardise(jnp.asarray(self.low)), self.units.standardise(jnp.asarray(self.high))
        middle, reach = (low + high) / 2, (high - low) / 2
        y = (estimate.denoised - middle) / reach
        scale = jnp.clip(jnp.quantile(jnp.abs(y), self.quantile), 1, self.largest)
        denoised = (middle + reach * jnp.clip(y, -scale, scale) / scale).astype(u.dtype)
        if not self.moves_noise:
            return dataclasses.replace(estimate, denoised=denoised)
        return estimate.moved(level, denoised - estimate.denoised)
