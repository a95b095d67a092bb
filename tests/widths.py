"""Gaussians of any width, and the errors of log_prob on them.

Examples are normal and independent in their entries, so that the model, its trace and its density cost nothing; the
prior is the exact one, by the density of the latent in float64.
"""

import jax.numpy as jnp
import numpy as np

import sgm
from sgm.likelihood import AbstractTrace
from sgm.model import AbstractModel, Estimate
from sgm.sde import Cosine, DiscreteChain, cos_of, linear_betas, sin_of

PROCESSES = {
    "VP": sgm.VP(),
    "SubVP": sgm.SubVP(),
    "VE": sgm.VE(),
    "Rectified": sgm.Rectified(),
    "chain": DiscreteChain(linear_betas(1000)),
    "pure noise": sgm.VP(Cosine(ratio_max=np.inf)),
}
WIDTHS = (1e-4, 1e-3, 2.3e-3, 1e-2, 0.1, 0.5, 1.0, 10.0)
DEVIATIONS = (0, 1, 3, 6)


def scales(dim):
    """Standard deviations of the entries, (cases, dim): of one width, and mixed."""
    share = np.linspace(0, 1, dim)
    mixed = [
        np.geomspace(1e-4, 10, dim),
        np.where(share < 0.5, 1e-3, 1.0),
        np.where(share == 0, 1e-4, 1.0),
        np.where(share == 0, 10.0, 1e-3),
        np.exp(np.random.default_rng(1).uniform(np.log(1e-3), 0, dim)),
    ]
    return np.stack([np.full(dim, width) for width in WIDTHS] + mixed).astype(np.float32)


class Independent(AbstractModel):
    """N(0, diag(cond.params^2))."""

    shape: tuple[int, ...]

    def predict(self, level, u, cond=None, key=None):
        cos, sin, variance = cos_of(level), sin_of(level), cond.params**2
        residual = u / (cos**2 * variance + sin**2)
        return Estimate(cos * variance * residual, sin * residual, cos * sin * (1 - variance) * residual)


class Sum(AbstractTrace):
    """The trace of a diagonal Jacobian, exactly, by one product."""

    chunk: int | None = None

    def check(self, key, shape):
        pass

    def products(self, shape):
        return 1

    def draw(self, key, x):
        return None

    def probe(self, drawn, index, x):
        return jnp.ones_like(x)

    def estimates(self, products):
        return products

    def combine(self, estimates):
        return estimates[0], jnp.zeros_like(estimates[0]), jnp.full_like(estimates[0], jnp.inf)


class Nothing:
    """A density of one, for another to be put in its place."""

    def log_prob(self, x):
        return jnp.zeros((), x.dtype)


def normal(x, variance):
    """The two parts that its logarithm is less than 0 by, in float64."""
    return 0.5 * np.sum(x**2 / variance, axis=-1), 0.5 * np.sum(np.log(2 * np.pi * variance), axis=-1)


def of_examples(sde, std, deviations, random, **options):
    """Errors of log_prob for x at so many deviations, the two parts of log p, and its result; `std` is (..., dim)."""
    at_start, at_end = (
        float(sde.alpha(t)) ** 2 * np.float64(std) ** 2 + float(sde.sigma(t)) ** 2 for t in (sde.t0, sde.t1)
    )
    x = np.asarray(np.sqrt(at_start) * random.standard_normal(std.shape[-2:]) * deviations, np.float32)
    cond, model = sgm.Condition(params=std), Independent(std.shape[-1:])
    result = sgm.log_prob(sde, model, x, cond=cond, trace=Sum(), prior=Nothing(), full=True, **options)
    quadratic, log_volume = normal(np.float64(x), at_start)
    value = np.float64(result.value) - sum(normal(np.float64(result.latent), at_end))
    return np.abs(value + quadratic + log_volume), quadratic, log_volume, result


def errors(sde, dim):
    """Those of the table's widths, (deviations, cases), the two parts of log p, and the result."""
    std = np.tile(scales(dim), (len(DEVIATIONS), 1, 1))
    return of_examples(sde, std, np.reshape(DEVIATIONS, (-1, 1, 1)), np.random.default_rng(0))


def certificates(sde, dim, kind, *, accuracy, n, seed):
    """Errors of log_prob, whether it takes them to be within the accuracy, and evaluations, for random Gaussians.

    `kind` says how widths from 1e-4 to 100 go over the entries: all the same, one of another, or each of its own.
    """
    random = np.random.default_rng(seed)
    std = np.exp(random.uniform(np.log(1e-4), np.log(1e2), (n, dim)))
    if kind != "mixed":
        std[:, 1:] = std[:, -1:]
    if kind == "isotropic":
        std[:, 0] = std[:, -1]
    error, _, _, result = of_examples(
        sde, np.float32(std), random.choice(DEVIATIONS, (n, 1)), random, accuracy=accuracy
    )
    return error, np.asarray(result.converged), np.asarray(result.nfe)
