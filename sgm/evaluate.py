"""The log-likelihood of a whole data set, and what to hold it against."""

import math
from typing import NamedTuple

import diffrax
import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from sgm.data import AbstractDataset
from sgm.likelihood.dequantise import bits_per_dim, dequantise
from sgm.likelihood.log_prob import log_prob
from sgm.likelihood.trace import AbstractTrace
from sgm.model.base import AbstractModel
from sgm.model.condition import condition_from
from sgm.sde.base import AbstractSDE


class Average(NamedTuple):
    """A mean over examples and its standard error, None for a single example."""

    mean: float
    stderr: float | None

    def __str__(self):
        return f"{self.mean:.4f}" if self.stderr is None else f"{self.mean:.4f} ± {self.stderr:.4f}"


class Evaluation(NamedTuple):
    """Per example: log p(x) in nats, nan where the solve did not finish, its standard error, and the evaluations."""

    log_prob: np.ndarray
    stderr: np.ndarray
    nfe: np.ndarray


def evaluate(
    sde: AbstractSDE,
    model: AbstractModel,
    data: AbstractDataset,
    *,
    split: str,
    n: int | None,
    batch_size: int,
    trace: AbstractTrace,
    tolerance: float,
    key: PRNGKeyArray,
) -> Evaluation:
    """log p of the first `n` examples of a split (None for all), each dequantised once if it has levels."""
    total = data.size(split) if n is None else min(n, data.size(split))
    if total == 0:
        raise ValueError(f"evaluate: the split {split!r} is empty; evaluate another, or give it examples.")
    batch_size = min(batch_size, total)
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    parts = []
    with tqdm(desc=f"log-likelihood of {split}", total=total, unit="example") as bar:
        for start in range(0, total, batch_size):
            # The last batch reaches back to be as long as the others, so that all share one compiled function.
            first = min(start, total - batch_size)
            x, fields = data.rows(split, first, first + batch_size)
            key_data, key_trace = jr.split(jr.fold_in(key, start))
            x = jax.numpy.asarray(x) if data.levels is None else dequantise(x, data.levels, key_data)
            result = log_prob(
                sde, model, x, key_trace, cond=condition_from(fields), trace=trace, controller=controller, full=True
            )
            new = slice(start - first, None)
            parts.append([np.asarray(values)[new] for values in (result.value, result.stderr, result.nfe)])
            bar.update(len(parts[-1][0]))
    return Evaluation(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def average(values: np.ndarray) -> Average:
    """The mean of the finite values and its standard error."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        raise ValueError(f"average: none of the {len(values)} values is finite; loosen the tolerance of the solves.")
    stderr = float(finite.std(ddof=1) / math.sqrt(len(finite))) if len(finite) > 1 else None
    return Average(float(finite.mean()), stderr)


def uniform_bits_per_dim(levels: int) -> float:
    """Of the model to which all levels are equally likely."""
    return math.log2(levels)


def gaussian_bits_per_dim(data: AbstractDataset, split: str, n: int, key: PRNGKeyArray) -> Average | None:
    """Of the full-covariance Gaussian with the moments of the dequantised training images, in float64.

    On the first `n` examples of a split; None where there are fewer training images than dimensions, or more than 4096
    dimensions.
    """
    dim = math.prod(data.shape)
    if data.levels is None or not data.size("train") > dim <= 4096:
        return None
    key_train, key_test = jr.split(key)
    train, test = (
        np.asarray(dequantise(data.rows(part, 0, count)[0], data.levels, part_key), np.float64).reshape(-1, dim)
        for part, count, part_key in (("train", data.size("train"), key_train), (split, n, key_test))
    )
    mean, cov = train.mean(axis=0), np.cov(train, rowvar=False)
    quadratic = np.sum((test - mean) * np.linalg.solve(cov, (test - mean).T).T, axis=1)
    log_probs = -0.5 * (quadratic + np.linalg.slogdet(cov).logabsdet + dim * math.log(2 * math.pi))
    return average(np.asarray(bits_per_dim(log_probs.astype(np.float32), dim, levels=data.levels)))
