"""Processes, exact models and closed forms that tests share."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

import sgm
from sgm.model import AbstractModel, Estimate, FixedSmall, Gaussian, GaussianMixture
from sgm.sde import Cosine, DiscreteChain, cos_of, sin_of
from sgm.solve import LogSNRGrid

PROCESSES = {
    "VP": sgm.VP(),
    "VP cosine": sgm.VP(Cosine()),
    "SubVP": sgm.SubVP(),
    "SubVP cosine": sgm.SubVP(Cosine()),
    "VE": sgm.VE(),
    "Rectified": sgm.Rectified(),
}
FOUR = ("VP", "SubVP", "VE", "Rectified")


def gaussian(dim):
    """A correlated Gaussian with a mean, standard deviations between 0.1 and about 1.5."""
    factor = jr.normal(jr.key(dim), (dim, dim)) / math.sqrt(dim)
    return Gaussian(jr.normal(jr.key(dim + 1), (dim,)), factor @ factor.T + 0.01 * jnp.eye(dim))


def mixture(dim):
    """Five unequal modes."""
    means = jr.normal(jr.key(dim + 2), (5, dim))
    return GaussianMixture(means, jnp.linspace(0.1, 0.5, 5), jnp.asarray([0.3, 0.25, 0.2, 0.15, 0.1]))


def closed_form(name, t):
    """(alpha, sigma, f, g^2, log_snr) in float64, by formulas of the process's own paper."""
    t = np.asarray(t, np.float64)
    if name == "VE":
        sigma = 1e-3 * 1e5**t
        return np.ones_like(t), sigma, np.zeros_like(t), 2 * math.log(1e5) * sigma**2, -2 * np.log(sigma)
    if name == "Rectified":
        return 1 - t, t, -1 / (1 - t), 2 * t / (1 - t), 2 * np.log((1 - t) / t)
    if name.endswith("cosine"):
        start, end = math.atan(1e-3), math.atan(1e2)
        theta = start + (end - start) * t
        integral, beta = -2 * np.log(np.cos(theta)), 2 * (end - start) * np.tan(theta)
    else:
        integral, beta = 0.1 * t + 9.95 * t**2, 0.1 + 19.9 * t
    alpha = np.exp(-integral / 2)
    if name.startswith("VP"):
        return alpha, np.sqrt(-np.expm1(-integral)), -beta / 2, beta, -np.log(np.expm1(integral))
    sigma = -np.expm1(-integral)
    return alpha, sigma, -beta / 2, -beta * np.expm1(-2 * integral), -integral - 2 * np.log(sigma)


def shared_range(process, low=2e-3, high=90.0):
    """The process between two noise levels that all share."""
    sde = PROCESSES[process]
    options = {"schedule": sde.schedule} if process.endswith("cosine") else {}
    t0, t1 = (float(sde.time(np.log(ratio))) for ratio in (low, high))
    return type(sde)(**options, t0=t0, t1=t1)


def even_chain(steps):
    """Steps of one length in log-SNR, from sigma/alpha = 1e-2."""
    sde = sgm.VP(t0=float(sgm.VP().time(math.log(1e-2))))
    return DiscreteChain.at_times(sde, np.asarray(LogSNRGrid().times(sde, steps - 1))[::-1])


def bound_gap(chain, model, variance):
    """E[log p(x) - bound] for x from a Gaussian that the model knows, in nats: by eigenvectors, in float64."""
    data, mean = np.float64(model.eigenvalues), np.float64(model.eigenvectors).T @ np.float64(model.mean)
    kept, beta = np.cumprod(1 - chain.betas.values)[:, None], chain.betas.values[1:, None]
    error = data * (1 - kept) / (kept * data + 1 - kept)  # E (x0 - denoised)^2
    s, t = kept[:-1], kept[1:]
    small = beta * (1 - s) / (1 - t)
    used = small if isinstance(variance, FixedSmall) else beta
    missed = s * (beta / (1 - t)) ** 2 * error[1:]
    diffusion = 0.5 * np.sum(small / used - 1 - np.log(small / used) + missed / used, axis=0)
    prior = 0.5 * (kept[-1] * (data + mean**2 - 1) - np.log1p(-kept[-1]))
    ratio = (1 - kept[0]) / kept[0]
    last = 0.5 * (error[0] / ratio + np.log(2 * np.pi * ratio))
    return float(np.sum(diffusion + prior + last - 0.5 * np.log(2 * np.pi * np.e * data)))


def drawn_bound_gap(chain, model, variance, key, draws):
    """The same by `sgm.elbo`, and its standard error.

    From `draws` at each of a few points of the data's own mean and covariance: log p and the bound are quadratic in x.
    """
    offsets = math.sqrt(model.mean.size) * (model.eigenvectors * jnp.sqrt(model.eigenvalues)).T
    x = jnp.concatenate([model.mean + offsets, model.mean - offsets])
    bound = sgm.elbo(chain, model, x, key, variance=variance, draws=draws, full=True)
    gap = jnp.mean(jax.vmap(model.log_prob)(x) - bound.value)
    return float(gap), float(jnp.sqrt(jnp.mean(bound.stderr**2) / len(x)))


class Shifted(AbstractModel):
    """N(cond.params, std^2 I) in the plane."""

    std: float
    shape: tuple[int, ...] = (2,)

    def predict(self, level, u, cond=None, key=None):
        return Gaussian(cond.params, self.std**2 * jnp.eye(2)).predict(level, u)


def slopes(function, at, direction, step=1e-5):
    """The derivative of a scalar function of a pytree along a direction, by its gradient and by differences."""

    def along(length):
        return float(function(jax.tree.map(lambda leaf, slope: leaf + length * slope, at, direction)))

    products = jax.tree.map(jnp.vdot, jax.grad(function)(at), direction)
    return float(sum(jax.tree.leaves(products))), (along(step) - along(-step)) / (2 * step)


def moments_agree(x, model, n):
    """Mean and covariance within five standard errors, and 1% for the method's own error."""
    cov = model.eigenvectors * model.eigenvalues @ model.eigenvectors.T
    std = np.sqrt(np.diag(cov))
    np.testing.assert_array_less(np.abs(x.mean(0) - model.mean), (5 / np.sqrt(n) + 0.01) * std)
    np.testing.assert_array_less(np.abs(np.cov(x.T) - cov), (5 * np.sqrt(2 / n) + 0.02) * np.outer(std, std))


class Brightness(AbstractModel):
    """Constant images, all of whose pixels are N(mean, std^2): a Gaussian of rank one."""

    mean: Array
    std: Array
    shape: tuple[int, ...]

    def predict(self, level, u, cond=None, key=None):
        cos, sin = cos_of(level), sin_of(level)
        gain = self.std**2 * cos / (u.size * cos**2 * self.std**2 + sin**2)
        denoised = jnp.broadcast_to(self.mean + gain * jnp.sum(u - cos * self.mean), u.shape)
        # Noise and velocity from u and x0, in the plane of cos and sin.
        noise = jnp.where(sin > cos, (u - cos * denoised) / jnp.maximum(sin, 0.5), (u - cos * denoised) / sin)
        return Estimate(denoised, noise, cos * noise - sin * denoised)
