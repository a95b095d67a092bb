"""The log-likelihood of dead leaves under a trained run, beside a Gaussian with the covariance of the training law.

python tests/benchmarks/dead_leaves.py --run runs/dead_leaves
"""

import argparse
import math
from pathlib import Path

import numpy as np
from networks import table

from sgm.evaluation import Row, read_columns
from sgm.runs import read_experiment

BATCHES, BATCH = 10, 4096


def average(values):
    """The mean of the finite values with its standard error."""
    row = Row.mean("", values)
    return f"{row.value:.4f} ± {row.stderr:.4f}"


def gaussian_log_probs(data, x):
    """Of the rows of x in nats, in float64, under the mean and covariance of fresh training images."""
    train = np.concatenate([data.batch(step, BATCH, seed=1)[0] for step in range(BATCHES)])
    train = train.reshape(len(train), -1).astype(np.float64)
    offsets, cov = x - train.mean(axis=0), np.cov(train, rowvar=False)
    quadratic = np.sum(offsets * np.linalg.solve(cov, offsets.T).T, axis=1)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * math.pi * cov).logabsdet)


def main(run):
    experiment, columns = read_experiment(run), read_columns(run / "evaluation.parquet")
    data, dim = experiment.data, math.prod(experiment.data.shape)
    images, _ = data.rows(experiment.evaluation.split, 0, len(columns["index"]))
    model = np.where(np.isfinite(columns["log_prob"]), columns["log_prob"], np.nan)
    gaussian = gaussian_log_probs(data, images.reshape(len(images), -1).astype(np.float64))

    def row(name, values):
        return name, average(values), average(values / (dim * math.log(2)))

    def white(name, std):
        bits = -0.5 * math.log2(2 * math.pi * math.e * std**2)
        return name, f"{bits * dim * math.log(2):.2f}", f"{bits:.4f}"

    print(f"{len(images)} images of {run}, Gaussian of {BATCHES * BATCH} training images")
    table(
        ("", "nats", "bits/pixel"),
        row("this model", model),
        row("Gaussian", gaussian),
        row("model - Gaussian", model - gaussian),
        white("the noise alone, above every model", data.noise),
        white("N(0, I)", 1.0),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/dead_leaves"))
    main(parser.parse_args().run)
