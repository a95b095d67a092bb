"""Bits per dimension of a run's test images by library calls: `python docs/examples/evaluate.py runs/digits`."""

import sys
from pathlib import Path

import jax.random as jr

import sgm
from sgm.evaluation import LogLikelihood
from sgm.runs import read_experiment

run = Path(sys.argv[1])
sde, model = sgm.load(run)
metric = LogLikelihood(sgm.Exact(), accuracy=1e-2)
report = sgm.evaluate(sde, model, read_experiment(run).data, [metric], jr.key(0), progress=False)
bits = report["bits_per_dim"]
print(f"{bits.value:.4f} ± {bits.stderr:.4f} bits/dim of {report.examples} images")
