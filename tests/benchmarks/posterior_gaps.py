"""How far draws of `sgm.posterior.PosteriorAncestral` are from exact Gaussian posteriors, as a table in Markdown.

    python tests/benchmarks/posterior_gaps.py

The model is a field of 4 x 4 pixels of standard deviation 0.5, correlated as exp(-distance / 2 pixels). A cell has the
error of the draws' means in posterior standard deviations, root mean square, and the ratio of standard deviations, both
over observations and entries; inpainting knows the upper half. 2015 starts denoising "from the observation".
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy.stats import norm

import sgm
from sgm.model import Gaussian, GaussianMixture
from sgm.posterior import AbstractPathEvidence, Denoising, Inpainting, MatchedDenoising, PosteriorAncestral

SDE, END, STEPS, DRAWS = sgm.VP(), diffrax.SaveAt(t0=True), (50, 200, 800), 1000
PIXELS = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(16, 2)
COV = 0.25 * np.exp(-np.linalg.norm(PIXELS[:, None] - PIXELS, axis=-1) / 2)
MODEL = Gaussian(jnp.zeros(16), jnp.asarray(COV))
UPPER = np.arange(16) < 8


class Replacement(AbstractPathEvidence):
    """Known entries drawn under the noise of each level: N(cos_s known, sin_s^2)."""

    known: jax.Array

    @property
    def y(self):
        return self.known

    def standardised(self, units):
        return self

    def apply(self, level, mean, std):
        theta = jnp.arctan(jnp.exp(level))
        return jnp.where(UPPER, jnp.cos(theta) * self.known, mean), jnp.where(UPPER, jnp.sin(theta), std)


@eqx.filter_jit
def draws(evidences, starts, steps):
    """DRAWS of each posterior, from the prior, or each from its own of `starts`."""

    def of_one(evidence, start, key):
        method = PosteriorAncestral(evidence, steps)
        if start is None:
            return sgm.sample(SDE, MODEL, key, DRAWS, method=method)
        equation, solving = method.equation(SDE, MODEL, None), (diffrax.DirectAdjoint(), diffrax.NoProgressMeter())
        ends = jax.vmap(lambda key: method.solve(equation, start, key, END, *solving)[0][-1])(jr.split(key, DRAWS))
        return jax.vmap(lambda x: MODEL.denoise(SDE, SDE.t0, x))(ends)

    return jax.vmap(of_one)(evidences, starts, jr.split(jr.key(0), 32))


def row(name, kind, noise, starting=False):
    """`noise` is the standard deviation of that of each entry; observations are sigma points of their distribution."""
    root = np.linalg.cholesky(COV + np.diag(np.where(noise < 1e3, noise, 0.0) ** 2)).T
    y = 4 * np.concatenate([root, -root])
    gain = COV @ np.linalg.inv(COV + np.diag(noise**2))
    mean, std = y @ gain.T, np.sqrt(np.maximum(np.diag(COV - gain @ COV), 1e-18))
    cells, observed = [], jnp.asarray(y, jnp.float32)
    for steps in STEPS:
        x = np.float64(draws(jax.vmap(kind)(observed), observed if starting else None, steps))
        off, ratio = ((x.mean(1) - mean) / std)[:, noise > 0], (x.std(1) / std)[:, noise > 0]
        gap = np.sqrt(max(np.mean(off**2) - np.mean(ratio**2) / DRAWS, 0))  # less what so many draws scatter
        cells.append(f"{gap:.3f}, {ratio.mean():.3f}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_modes():
    """How often inpainting picks the mode of a mixture that the known entry tells of."""
    mixture = GaussianMixture(jnp.asarray([[1.0, 1.0], [-1.0, -1.0]]), jnp.full(2, 0.2), jnp.full(2, 0.5))
    print(f"| known entry | posterior | {' | '.join(f'{steps} steps' for steps in STEPS)} |")
    print(f"|---|---|{'---|' * len(STEPS)}")
    for known in (0.4, 0.1):
        weights = norm.pdf(known, [1, -1], 0.2)
        exact = np.sum(weights / np.sum(weights) * norm.sf(0, [1, -1], 0.2))
        evidence = Inpainting(jnp.asarray([known, 0.0]), jnp.asarray([True, False]))
        methods = (PosteriorAncestral(evidence, steps) for steps in STEPS)
        shares = (np.mean(sgm.sample(SDE, mixture, jr.key(0), 4096, method=method)[:, 1] > 0) for method in methods)
        print(f"| {known} | {exact:.3f} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    print_modes()
    print(f"| evidence | {' | '.join(f'{steps} steps' for steps in STEPS)} |\n|---|{'---|' * len(STEPS)}")
    hidden = np.where(UPPER, 0.0, 1e6)
    row("none", lambda y: Denoising(y, np.inf), np.full(16, 1e6))
    row("`Inpainting`", lambda y: Inpainting(y, UPPER), hidden)
    row("known under noise", Replacement, hidden)
    for std in (0.1, 0.3, 1.0):
        noise, product = np.full(16, std), lambda y, std=std: Denoising(y, std)
        row(f"`Denoising`, {std}", product, noise)
        row(f"`Denoising`, {std}, from the observation", product, noise, starting=True)
        row(f"`MatchedDenoising`, {std}", lambda y, std=std: MatchedDenoising(y, std), noise)
