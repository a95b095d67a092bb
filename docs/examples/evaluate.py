"""Bits per dimension of a run's test images by library calls: `python docs/examples/evaluate.py runs/digits`."""

import sys

import jax.random as jr

import sgm
from sgm.config import read_config

run = sys.argv[1]
sde, model = sgm.load(run)
data = read_config(run).data
levels, _ = data.rows("test", 0, data.size("test"))
options = {"count": data.levels, "trace": sgm.Exact(), "accuracy": 1e-2, "full": True}
result = sgm.likelihood.discrete_log_prob(sde, model, levels, jr.key(0), **options)
bits = sgm.bits_per_dim(result.value, levels[0].size, levels=None)
print(f"{bits.mean():.4f} ± {bits.std() / len(bits) ** 0.5:.4f} bits/dim of {len(bits)} images")
