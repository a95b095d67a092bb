"""Bits per dimension of a run's test images by library calls: `python docs/examples/evaluate.py runs/digits`."""

import math
import sys

import jax.random as jr
import numpy as np

import sgm
from sgm.build import build_dequantisation
from sgm.config import read_config
from sgm.evaluation.evaluate import average, evaluate

config = read_config(sys.argv[1])
sde, model = sgm.load(sys.argv[1])
options = {"dequantisation": build_dequantisation(config), "trace": sgm.Exact(), "accuracy": 1e-2}
result = evaluate(sde, model, config.data, split="test", n=None, batch_size=100, key=jr.key(0), **options)
bits = sgm.bits_per_dim(result.log_prob, math.prod(config.data.shape), levels=None)
print(average(np.asarray(bits)), "bits/dim of", len(bits), "images")
