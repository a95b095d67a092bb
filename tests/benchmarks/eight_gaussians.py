"""How far a trained run on eight Gaussians is below their exact density, point by point over its evaluation.

python tests/benchmarks/eight_gaussians.py runs/eight_gaussians
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sgm.evaluation import Row, read_columns
from sgm.model import GaussianMixture
from sgm.runs import read_experiment

if __name__ == "__main__":
    run = Path(sys.argv[1])
    data, log_prob = read_experiment(run).data, read_columns(run / "evaluation.parquet")["log_prob"]
    centres = data.centre((jnp.arange(8) + 0.5) / 8)
    exact = GaussianMixture(centres, jnp.full(8, data.noise), jnp.full(8, 1 / 8))
    x, _ = data.rows("test", 0, len(log_prob))
    excess = np.asarray(jax.vmap(exact.log_prob)(jnp.asarray(x))) - log_prob
    print(Row.mean("excess", excess, "nats", f"over the exact density, at {len(excess)} points"))
