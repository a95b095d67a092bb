"""Inverse problems whose posteriors are known: Gaussian fields, mixtures, and sparse signals by Gibbs sampling.

Imported by tests/benchmarks/posteriors.py.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm.model import AbstractModel, Gaussian, GaussianMixture, WithUnits
from sgm.posterior import Blur, Convolve, Downsample, Linear, Mask, Projections


@dataclasses.dataclass
class Problem:
    """A posterior, of some observations.

    Arguments:
        name: Name of the row.
        family: Name of the group of rows.
        model: Model of the prior.
        evidence: Evidence, with an axis of observations.
        reference: Exact draws, of shape (observations, 2 n, D).
        mean: Posterior means, of shape (observations, D).
        std: Posterior standard deviations, of shape (observations, D).
        log_evidence: Log-evidence of each observation, in nats; None where it is not known.
        modes: Means of the modes, of shape (modes, D); None where there are none.
        weights: Posterior weights of the modes, of shape (observations, modes).
    """

    name: str
    family: str
    model: AbstractModel
    evidence: Linear
    reference: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    log_evidence: np.ndarray | None = None
    modes: np.ndarray | None = None
    weights: np.ndarray | None = None


def matrix_of(operator, shape):
    """The matrix of a linear function of examples of `shape`, of entries in rows."""
    return np.asarray(jax.jacobian(operator)(jnp.zeros(shape)), np.float64).reshape(-1, int(np.prod(shape)))


def fields(side, observations, n):
    """Fields of side x side pixels of covariance exp(-distance / 3 pixels), observed in four ways at three noises."""
    rng, shape = np.random.default_rng(side), (side, side, 1)
    pixels = np.stack(np.meshgrid(range(side), range(side), indexing="ij"), -1).reshape(-1, 2)
    cov = np.exp(-np.linalg.norm(pixels[:, None] - pixels, axis=-1) / 3)
    model = Gaussian(jnp.zeros(shape), jnp.asarray(cov, jnp.float32))
    operators = {
        "half": Mask(np.broadcast_to(np.arange(side)[:, None, None] < side // 2, shape)),
        "blur": Blur(1.0),
        "4x smaller": Downsample(4),
        "10 projections": Projections(shape, 10, jr.key(side)),
    }
    root = np.linalg.cholesky(cov)
    for name, operator in operators.items():
        matrix = matrix_of(operator, shape)
        for std in (0.01, 0.1, 1.0):
            truth = rng.normal(size=(observations, len(cov))) @ root.T
            y = truth @ matrix.T + std * rng.normal(size=(observations, len(matrix)))
            total = matrix @ cov @ matrix.T + std**2 * np.eye(len(matrix))
            gain = np.linalg.solve(total, matrix @ cov).T
            spread = cov - gain @ matrix @ cov
            values, vectors = np.linalg.eigh(spread)
            noise = rng.normal(size=(observations, 2 * n, len(cov))) * np.sqrt(np.maximum(values, 0))
            mean = y @ gain.T
            square = np.einsum("oi,oi->o", y, np.linalg.solve(total, y.T).T)
            own = jax.eval_shape(operator, jnp.zeros(shape)).shape
            yield Problem(
                name=f"{name}, noise {std}",
                family=f"field {side}x{side}",
                model=model,
                evidence=Linear(operator, jnp.asarray(y.reshape(observations, *own), jnp.float32), std),
                reference=mean[:, None] + noise @ vectors.T,
                mean=mean,
                std=np.broadcast_to(np.sqrt(np.diag(spread)), mean.shape),
                log_evidence=-0.5 * (square + np.linalg.slogdet(2 * np.pi * total)[1]),
            )


def mixtures(dim, observations, n):
    """25 unit Gaussians at (8 i, 8 j, 8 i, 8 j ...), i and j from -2 to 2, of random weights, along 1, 2, 4 directions.

    The setting of Cardoso et al. 2024 (arXiv:2308.07983, section 5), with directions of length 1 and noise 0.5.
    """
    rng = np.random.default_rng(dim)
    places = 8.0 * np.stack(np.meshgrid(range(-2, 3), range(-2, 3), indexing="ij"), -1).reshape(25, 2)
    modes, weights = np.tile(places, dim // 2), rng.dirichlet(np.ones(25))
    mean, std = weights @ modes, np.sqrt(1 + np.var(modes, axis=0).mean())
    plain = GaussianMixture(
        jnp.asarray((modes - mean.mean()) / std, jnp.float32), jnp.full(25, 1 / std), jnp.asarray(weights, jnp.float32)
    )
    model = WithUnits(plain, sgm.Units(float(mean.mean()), float(std)))
    for count in (1, 2, 4):
        operator, noise = Projections((dim,), count, jr.key(count)), 0.5
        matrix = matrix_of(operator, (dim,))
        truth = modes[rng.choice(25, observations, p=weights)] + rng.normal(size=(observations, dim))
        y = truth @ matrix.T + noise * rng.normal(size=(observations, count))
        total = matrix @ matrix.T + noise**2 * np.eye(count)
        residual = y[:, None] - modes @ matrix.T
        square = np.einsum("oki,ij,okj->ok", residual, np.linalg.inv(total), residual)
        terms = np.log(weights) - 0.5 * (square + np.linalg.slogdet(2 * np.pi * total)[1])
        log_evidence = np.logaddexp.reduce(terms, axis=1)
        posterior = np.exp(terms - log_evidence[:, None])
        gain = np.linalg.solve(total, matrix).T
        reference = np.empty((observations, 2 * n, dim))
        for place in range(observations):
            x = modes[rng.choice(25, 2 * n, p=posterior[place])] + rng.normal(size=(2 * n, dim))
            seen = x @ matrix.T + noise * rng.normal(size=(2 * n, count))
            reference[place] = x + (y[place] - seen) @ gain.T
        centres = modes + residual @ gain.T
        means = np.einsum("ok,okd->od", posterior, centres)
        variance = 1 - np.einsum("di,id->d", gain, matrix)
        square = np.einsum("ok,okd->od", posterior, (centres - means[:, None]) ** 2)
        yield Problem(
            name=f"{count} of {dim} directions",
            family="25 Gaussians",
            model=model,
            evidence=Linear(operator, jnp.asarray(y, jnp.float32), noise),
            reference=reference,
            mean=means,
            std=np.sqrt(square + variance),
            log_evidence=log_evidence,
            modes=modes,
            weights=posterior,
        )


LENGTH, SCALE = 64, 0.3


class Chain(eqx.Module):
    """An operator of signals (length, channels), of signals without channels."""

    operator: Convolve

    def __call__(self, x):
        return self.operator(x[:, None])[:, 0]


def signals(rng, n):
    """Sums of independent Laplace increments, a Lévy process."""
    return np.cumsum(rng.laplace(0, SCALE, (n, LENGTH)), axis=1)


def levy(observations, n, model):
    """Signals of 64 points, sums of Laplace increments: noisy, convolved, with missing samples; held to Gibbs draws."""
    rng = np.random.default_rng(64)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
    operators = {
        "denoising": lambda x: x,
        "deconvolution": Chain(Convolve(jnp.asarray(kernel / kernel.sum(), jnp.float32))),
        "missing samples": Mask(np.arange(LENGTH) % 4 == 0),
    }
    for name, operator in operators.items():
        matrix, std = matrix_of(operator, (LENGTH,)), 0.3
        truth = signals(rng, observations)
        y = truth @ matrix.T + std * rng.normal(size=(observations, len(matrix)))
        reference = gibbs(rng, matrix, std, y, 2 * n)
        own = jax.eval_shape(operator, jnp.zeros(LENGTH)).shape
        yield Problem(
            name=name,
            family="Lévy signal of 64 points",
            model=model,
            evidence=Linear(operator, jnp.asarray(y.reshape(observations, *own), jnp.float32), std),
            reference=reference,
            mean=reference.mean(axis=1),
            std=reference.std(axis=1),
        )


def gibbs(rng, matrix, std, y, n, burn=200, thin=3):
    """Draws of signals given y, by turns with the variances of their increments, of which Laplace's law is a mixture.

    Given the increments d, 1 / variance is inverse Gaussian of mean 1 / (SCALE |d|) and shape 1 / SCALE^2. Given the
    variances, increments are Gaussian. Source: Park and Casella, "The Bayesian lasso", 2008, section 2.
    """
    # y = matrix S d, with S the sums.
    design = matrix @ np.tril(np.ones((LENGTH, LENGTH)))
    square, moment = design.T @ design / std**2, y @ design / std**2
    increments = np.zeros((len(y), LENGTH))
    draws = np.empty((len(y), n, LENGTH))
    for sweep in range(burn + n * thin):
        precision = rng.wald(1 / (SCALE * np.maximum(np.abs(increments), 1e-9)), 1 / SCALE**2)
        precision = np.clip(precision, 1e-9, 1e9)
        root = np.linalg.cholesky(square + precision[:, :, None] * np.eye(LENGTH))
        mean = np.linalg.solve(root, moment[..., None])
        increments = np.linalg.solve(np.swapaxes(root, 1, 2), mean + rng.normal(size=mean.shape))[..., 0]
        if sweep >= burn and (sweep - burn) % thin == 0:
            draws[:, (sweep - burn) // thin] = np.cumsum(increments, axis=1)
    return draws
