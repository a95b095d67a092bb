"""Of trained runs, the bound of continuous time on test data, and the variance of the estimate that trained them.

python tests/benchmarks/schedules.py runs/digits runs/digits_learned ...
"""

import math
import sys
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm.likelihood import dequantise
from sgm.runs import read_experiment
from sgm.training import LikelihoodWeighting, Loss, UniformLogSNR
from sgm.training.learned_schedule import end_terms

EXAMPLES, DRAWS = 2000, 2000


@eqx.filter_jit
def draws(sde, model, x, times, key):
    """Estimates of the bound on -log p of one example, in nats a dimension; their times are stratified."""
    loss, repeated = Loss(LikelihoodWeighting(), times), jnp.broadcast_to(x, (DRAWS, *x.shape))
    return loss.errors(sde, model, loss.perturb(sde, model, repeated, key)) + end_terms(sde, repeated)


def measure(run):
    experiment, (sde, model) = read_experiment(Path(run)), sgm.load(run)
    data, times = experiment.data, experiment.loss.times
    x, _ = data.rows("test", 0, min(EXAMPLES, data.size("test")))
    x = data.units.standardise(x) if data.levels is None else dequantise(x, data.levels, jr.key(0))
    values, of_training = (
        np.stack([draws(sde, model, each, sampling, jr.key(number)) for number, each in enumerate(x)])
        for sampling in (UniformLogSNR(), times)
    )
    dim = math.prod(data.shape)
    scale, unit = (dim, "nats") if data.levels is None else (1 / math.log(2), "bits/dim")
    offset = 0.0 if data.levels is None else float(sgm.bits_per_dim(0.0, dim, levels=data.levels))
    examples, variance = scale * values.mean(1) + offset, scale**2 * of_training.var(1, ddof=1).mean()
    ratios = [math.exp(-0.5 * float(sde.log_snr(t))) for t in (sde.t0, sde.t1)]
    print(
        f"| {run} | {examples.mean():.4f} ± {examples.std(ddof=1) / len(examples) ** 0.5:.4f} {unit} | {variance:.4f} "
        f"| {ratios[0]:.1e} to {ratios[1]:.1e} |",
        flush=True,
    )


if __name__ == "__main__":
    print("| run | bound on -log p | variance from one time | sigma/alpha |\n|---|---|---|---|")
    for folder in sys.argv[1:]:
        measure(folder)
