"""How near all conditionals of one `Transformer` come to the true ones, on a Gaussian and a mixture of five variables.

    PYTHONPATH=tests python tests/benchmarks/conditionals.py [--kinds gaussian mixture narrow] [--steps 24000]

One model is trained by `UniformSubsets`. For ten random subsets of the variables, observed at values of one example,
10,000 draws are compared with the conditional in closed form: the error of each mean, in standard deviations of the
conditional, and the ratio of each standard deviation. The aim is 0.05 and 0.95 to 1.05, which a slow test holds for the
Gaussian and the mixture of broad modes.
"""

import argparse
import dataclasses
import time

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from truth import gaussian, mixture

import sgm
from sgm.data import AbstractSimulated
from sgm.nn import Conditioning, Transformer
from sgm.training import KarrasWeighting, Muon, NormalLogSNR, UniformSubsets


def broad(dim):
    """Three modes that overlap along each axis."""
    means, stds = jr.normal(jr.key(dim + 3), (3, dim)), jnp.asarray([0.4, 0.5, 0.6])
    return sgm.model.GaussianMixture(means, stds, jnp.asarray([0.5, 0.3, 0.2]))


EXACT = {"gaussian": gaussian, "mixture": broad, "narrow": mixture}


@dataclasses.dataclass(frozen=True)
class Drawn(AbstractSimulated):
    """Draws of an exact model of five variables."""

    kind: str = "gaussian"

    @property
    def exact(self):
        return EXACT[self.kind](5)

    @property
    def shape(self):
        return (5,)

    def simulate(self, key, n):
        return self.exact.sample(key, n), {}


def conditional_moments(exact, mask, x):
    """Mean and standard deviation of each unobserved entry given the observed ones of x."""
    o, r = np.flatnonzero(mask), np.flatnonzero(~mask)
    if isinstance(exact, sgm.model.Gaussian):
        mean, cov = np.asarray(exact.mean, np.float64), np.asarray(exact.cov, np.float64)
        gain = cov[np.ix_(r, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        return mean[r] + gain @ (x[o] - mean[o]), np.sqrt(np.diag(cov[np.ix_(r, r)] - gain @ cov[np.ix_(o, r)]))
    means, stds, weights = (np.asarray(part, np.float64) for part in (exact.means, exact.stds, exact.weights))
    log_weights = np.log(weights) - 0.5 * np.sum((x[o] - means[:, o]) ** 2, 1) / stds**2 - len(o) * np.log(stds)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    mean = weights @ means[:, r]
    return mean, np.sqrt(weights @ (means[:, r] ** 2 + stds[:, None] ** 2) - mean**2)


def trained(data, steps):
    """A model of every conditional."""
    network = Transformer((5,), 48, 2, 4, frequencies=4, conditioning=Conditioning(observed=5), key=jr.key(0))
    model = sgm.ScoreModel(network, sgm.model.Karras(), data=data)
    # From levels as low as the narrowest conditional to high ones, at which weights of modes are learnt.
    levels = {"mean": -0.8, "std": 1.8}
    loss = sgm.Loss(KarrasWeighting(**levels), NormalLogSNR(**levels), masking=UniformSubsets())
    how = {"steps": steps, "batch_size": 256, "loss": loss, "optimiser": Muon(3e-3), "progress": False}
    return sgm.train(sgm.VP(), model, data, jr.key(1), **how)[:2]


def errors(sde, model, exact):
    """For ten subsets: which are observed, and errors of the means and ratios of the standard deviations of draws."""
    examples, rng = np.asarray(exact.sample(jr.key(5), 10)), np.random.default_rng(0)
    for size, x in zip((0, 1, 2, 3, 4, 1, 2, 3, 4, 2), examples, strict=True):
        mask = np.zeros(5, bool)
        mask[rng.permutation(5)[:size]] = True
        cond = sgm.Condition(observed=jnp.where(mask, x, jnp.nan))
        method = sgm.DPMSolverPP(20, order=3)
        draws = np.asarray(sgm.sample(sde, model, jr.key(7), 10_000, cond=cond, method=method))[:, ~mask]
        mean, std = conditional_moments(exact, mask, x)
        yield np.flatnonzero(mask), (draws.mean(0) - mean) / std, draws.std(0) / std


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=list(EXACT), choices=list(EXACT))
    parser.add_argument("--steps", type=int, default=24_000)
    arguments = parser.parse_args()
    for kind in arguments.kinds:
        data, began = Drawn(kind), time.process_time()
        sde, model = trained(data, arguments.steps)
        print(f"{kind}: trained in {time.process_time() - began:.0f} s of the processor", flush=True)
        for observed, means, stds in errors(sde, model, data.exact):
            told = f"mean off by {np.round(means, 3)}, standard deviations {np.round(stds, 3)}"
            print(f"  {observed} observed: {told}", flush=True)
