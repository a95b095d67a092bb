"""Models made of models."""

import dataclasses

import jax.numpy as jnp

from sgm.model.base import AbstractModel


class Clipped(AbstractModel):
    """A model whose x0_hat is clipped to [low, high], and its noise and velocity with it.

    Source: Ho et al. 2020 (DDPM, arXiv:2006.11239), whose published sampler does so.
    """

    model: AbstractModel
    low: float = -1.0
    high: float = 1.0

    def __check_init__(self):
        if not self.low < self.high:
            raise ValueError(f"Clipped: low = {self.low}, high = {self.high}; pass low < high.")

    @property
    def shape(self):
        return self.model.shape

    @property
    def conditioning(self):
        return self.model.conditioning

    def predict(self, theta, u, cond=None, key=None):
        estimate = self.model.predict(theta, u, cond, key)
        denoised = jnp.clip(estimate.denoised, self.low, self.high)
        change = (denoised - estimate.denoised) / jnp.sin(theta)
        noise, velocity = estimate.noise - jnp.cos(theta) * change, estimate.velocity - change
        return dataclasses.replace(estimate, denoised=denoised, noise=noise, velocity=velocity)
