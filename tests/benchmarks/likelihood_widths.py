"""Errors of log_prob on Gaussians of any width, and whether its certificates hold, in nats: `errors` or `certificates`.

python tests/benchmarks/likelihood_widths.py errors
python tests/benchmarks/likelihood_widths.py certificates 0.1 0.01
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm

sys.path.append(str(Path(__file__).parents[1]))
from widths import DEVIATIONS, PROCESSES, certificates, errors


def print_errors():
    """The largest error over widths, at the default options."""
    print("| D | process | " + " | ".join(f"{d} deviations" for d in DEVIATIONS) + " | evaluations |")
    print("|---|---|" + "---|" * (len(DEVIATIONS) + 1))
    for dim in (2, 64, 784, 3072):
        for name, sde in PROCESSES.items():
            error, _, _, result = errors(sde, dim)
            worst = " | ".join(f"{value:.1e}" for value in error.max(axis=1))
            print(f"| {dim} | {name} | {worst} | {result.nfe.min()} to {result.nfe.max()} |", flush=True)


def of_mixture(sde, seed, accuracy, n):
    """Errors and certificates on a mixture of four Gaussians of random widths: half data, half far from them."""
    random = np.random.default_rng(seed)
    means, log_std = random.standard_normal((4, 2)), random.uniform(np.log(1e-3), 0, 4)
    model = sgm.model.GaussianMixture(*map(jnp.float32, (means, np.exp(log_std), np.full(4, 0.25))))
    start = model.marginal(sde, sde.t0)
    x = start.sample(jr.key(seed), n)
    x = x.at[n // 2 :].add(3 * jr.normal(jr.key(seed + 1), (n - n // 2, 2)))
    prior = model.marginal(sde, sde.t1)
    result = sgm.log_prob(sde, model, x, prior=prior, trace=sgm.Exact(), full=True, accuracy=accuracy)
    return np.abs(np.asarray(result.value - jax.vmap(start.log_prob)(x))), np.asarray(result.converged)


def print_certificates(*accuracies, n=200):
    """How many certificates were given, were false, and were refused to values within the accuracy."""
    print("| accuracy | family | values | false certificates | none given | of these within the accuracy |")
    print("|---|---|---|---|---|---|")
    for accuracy in map(float, accuracies):
        families = {}
        for sde in PROCESSES.values():
            jax.clear_caches()  # One process may not hold the code of all solves.
            for kind in ("isotropic", "mixed", "one"):
                for dim in (2, 8, 64):
                    error, converged, _ = certificates(sde, dim, kind, accuracy=accuracy, n=n, seed=dim)
                    families.setdefault(f"Gaussian, {kind}", []).append((error, converged))
            for seed in range(4):
                families.setdefault("mixture of 4", []).append(of_mixture(sde, seed, accuracy, n))
        for family, parts in families.items():
            error, converged = (np.concatenate(part) for part in zip(*parts, strict=True))
            counts = (error.size, converged & ~(error <= accuracy), ~converged, ~converged & (error <= accuracy))
            row = " | ".join(str(int(np.sum(count))) for count in counts)
            print(f"| {accuracy} | {family} | {row} |", flush=True)


if __name__ == "__main__":
    {"errors": print_errors, "certificates": print_certificates}[sys.argv[1]](*sys.argv[2:])
