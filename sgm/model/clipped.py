"""A model whose estimate is clipped."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_instance, is_traced
from sgm.model.base import AbstractModel, AbstractModifier
from sgm.types import Number


class Clipped(AbstractModifier):
    """A model whose denoised estimate is clipped to [low, high], and its noise and velocity with it.

    With `moves_noise=False` the noise and the velocity stay, so that they are no longer those of this denoised
    estimate: samplers that read both, as DDIM, then draw what diffusers' DDIM draws.

    Arguments:
        model: Model.
        low: Lower bound, in the data's units.
        high: Upper bound, in the data's units.
        moves_noise: Whether noise and velocity follow the denoised estimate.

    Raises:
        ValueError: for low >= high.

    Example:
        >>> clipped = Clipped(model, low=-1.0, high=1.0)
        >>> clipped.denoise(sgm.VE(), 0.6, jnp.asarray([4.0, -6.0]))  # without the bounds, 2 and -3
        Array([ 1., -1.], dtype=float32)

    Reference: Ho et al. 2020 (DDPM, arXiv:2006.11239), whose published sampler does so.
    """

    model: AbstractModel
    low: Number = -1.0
    high: Number = 1.0
    moves_noise: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_instance("Clipped", "model", self.model, AbstractModel, "sgm.ScoreModel(network, shape=(28, 28, 1))")
        if not is_traced((self.low, self.high)) and not self.low < self.high:
            raise ValueError(f"Clipped: low = {self.low}, high = {self.high}; pass low < high.")

    def predict(self, level, u, cond=None, key=None):
        estimate = self.model.predict(level, u, cond, key)
        low, high = self.units.standardise(jnp.asarray(self.low)), self.units.standardise(jnp.asarray(self.high))
        clipped = jnp.clip(estimate.denoised, low, high)
        if not self.moves_noise:
            return dataclasses.replace(estimate, denoised=clipped)
        return estimate.moved(level, clipped - estimate.denoised)
