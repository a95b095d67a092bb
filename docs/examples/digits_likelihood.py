"""Maximum likelihood for a trained run of the digits, and its bits per dimension before and after.

python docs/examples/digits_likelihood.py runs/digits
"""

import argparse
import time
from pathlib import Path

import jax.random as jr
import numpy as np

import sgm
from sgm.evaluation import LogLikelihood
from sgm.runs import read_experiment
from sgm.training import Adam, LogLikelihoodLoss


def main(
    run: Path,
    steps: int = 100,
    batch_size: int = 100,
    n: int | None = None,
    trace: sgm.likelihood.AbstractTrace = sgm.Hutchinson(4),
) -> np.ndarray:
    """Train on, and return bits/dim of each of the first `n` digits, of shape (before and after, train and test, n).

    `trace` is that of the evaluation, which has the same probes and the same dequantisation before and after.
    """
    sde, model = sgm.load(run)
    data, found = read_experiment(run).data, []

    def evaluate(model):
        for split in ("train", "test"):
            size = min(n or data.size("test"), data.size(split))
            metric, options = LogLikelihood(trace), {"split": split, "n": size, "batch_size": 99, "progress": False}
            report = sgm.evaluate(sde, model, data, [metric], jr.key(0), **options)
            found.append(report.columns["bits_per_dim"])
            row = report["bits_per_dim"]
            print(f"{split}: {row.value:.4f} ± {row.stderr:.4f} bits/dim", flush=True)

    evaluate(model)
    began = time.perf_counter()
    optimiser = Adam(2e-4, warmup=20)
    how = {"steps": steps, "batch_size": batch_size, "optimiser": optimiser, "average_decay": 0.95, "log_every": 10}
    _, model, _ = sgm.train(sde, model, data, jr.key(1), loss=LogLikelihoodLoss(), checkpoint_every=steps, **how)
    print(f"{steps} steps of {batch_size} digits: {time.perf_counter() - began:.0f} s")
    evaluate(model)
    bits = np.reshape(found, (2, 2, -1))
    change = bits[1] - bits[0]
    error = np.std(change, axis=-1, ddof=1) / np.sqrt(change.shape[-1])
    for split, mean, stderr in zip(("train", "test"), change.mean(-1), error, strict=True):
        print(f"change on {split} digits: {mean:+.4f} ± {stderr:.4f} bits/dim")
    return bits


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.run, arguments.steps)
