"""The mean brightness of samples of constant images, by processes that end in pure noise and such that do not.

python tests/benchmarks/brightness.py
"""

import math
import sys
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm

sys.path.append(str(Path(__file__).parents[1]))
from truth import Brightness

if __name__ == "__main__":
    model = Brightness(jnp.asarray(1.0), jnp.asarray(0.3), (64, 64, 1))
    print("| process | method | bias of the mean | spread, of 0.3 |")
    print("|---|---|---|---|")
    for name, sde in {"VP": sgm.VP(), "cosine VP to pure noise": sgm.VP(sgm.sde.Cosine(ratio_max=math.inf))}.items():
        for method in (sgm.DPMSolverPP(20), sgm.DDIM(20), sgm.Ancestral(20)):
            draws = (sgm.sample(sde, model, jr.key(seed), 2048, method=method) for seed in range(4))
            means = np.concatenate([np.mean(x, axis=(1, 2, 3)) for x in draws])
            error = means.std() / math.sqrt(len(means))
            print(f"| {name} | {type(method).__name__} | {means.mean() - 1:.4f} ± {error:.4f} | {means.std():.3f} |")
