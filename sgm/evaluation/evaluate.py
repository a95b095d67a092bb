"""The log-likelihood of a whole data set, and what to hold it against."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from sgm.data import AbstractDataset
from sgm.likelihood.dequantise import bits_per_dim, dequantise
from sgm.likelihood.discrete import AbstractDequantisation, UniformDequantisation, discrete_log_prob
from sgm.likelihood.log_prob import log_prob
from sgm.model.base import AbstractModel
from sgm.nn.condition import condition_from
from sgm.sde.base import AbstractSDE


class Average(NamedTuple):
    """A mean over examples and its standard error, None for a single example."""

    mean: float
    stderr: float | None

    def __str__(self):
        return f"{self.mean:.4f}" if self.stderr is None else f"{self.mean:.4f} ± {self.stderr:.4f}"


class Evaluation(NamedTuple):
    """Per example: log p in nats, nan where the solve did not finish, its standard error, and the evaluations.

    - `log_prob`: the log-density of real data; of data with levels, the bound on the log-probability of the levels.
    - `converged`: whether the solve finished, and reached the `accuracy` if one was asked for.
    - `seconds`: wall time of the batches, without those that were found on disk.
    """

    log_prob: np.ndarray
    stderr: np.ndarray
    nfe: np.ndarray
    converged: np.ndarray
    seconds: float


def evaluate(
    sde: AbstractSDE,
    model: AbstractModel,
    data: AbstractDataset,
    *,
    split: str,
    n: int | None,
    batch_size: int,
    key: PRNGKeyArray,
    dequantisation: AbstractDequantisation = UniformDequantisation(),
    samples: int = 1,
    folder: Path | None = None,
    **options: Any,
) -> Evaluation:
    """log p of the first `n` examples of a split (None for all), batch by batch; `options` are those of `log_prob`.

    Data with levels are dequantised, with `samples` draws each (see `discrete_log_prob`). With a `folder`, each batch
    is stored there as a parquet file once it is done, and batches that are found there are not computed again: it must
    be a folder for this model and these arguments alone.
    """
    total = data.size(split) if n is None else min(n, data.size(split))
    if total == 0:
        raise ValueError(f"evaluate: the split {split!r} is empty; evaluate another, or give it examples.")
    batch_size = min(batch_size, total)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def compute(start):
        # The last batch reaches back to be as long as the others, so that all share one compiled function.
        first = min(start, total - batch_size)
        x, fields = data.rows(split, first, first + batch_size)
        batch_key, cond = jr.fold_in(key, start), condition_from(fields)
        if data.levels is None:
            result = log_prob(sde, model, jnp.asarray(x), batch_key, cond=cond, full=True, **options)
            nfe = result.nfe
        else:
            how = {"count": data.levels, "dequantisation": dequantisation, "samples": samples, **options}
            result = discrete_log_prob(sde, model, x, batch_key, cond=cond, full=True, **how)
            nfe = jnp.sum(result.draws.nfe, axis=0)
        new = slice(start - first, None)
        converged = jnp.isfinite(result.value) if result.converged is None else result.converged
        columns = {"log_prob": result.value, "stderr": result.stderr, "nfe": nfe, "converged": converged}
        return {name: np.asarray(values)[new] for name, values in columns.items()}

    from tqdm import tqdm

    parts, seconds = [], 0.0
    with tqdm(desc=f"log-likelihood of {split}", total=total, unit="example") as bar:
        for start in range(0, total, batch_size):
            path = None if folder is None else folder / f"{start:09d}-{min(start + batch_size, total):09d}.parquet"
            if path is not None and path.exists():
                parts.append(read_columns(path))
            else:
                began = time.perf_counter()
                parts.append(compute(start))
                seconds += time.perf_counter() - began
                if path is not None:
                    write_columns(path, parts[-1])
            bar.update(len(parts[-1]["log_prob"]))
    columns = (np.concatenate([part[name] for part in parts]) for name in parts[0])
    return Evaluation(*columns, seconds=seconds)


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """A parquet file of these columns, whole or not at all."""
    import pyarrow.parquet  # here, because importing sgm loads no more than it needs

    part = path.with_suffix(".part")
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), part)
    part.replace(path)


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a parquet file."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


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
    dim, levels = math.prod(data.shape), data.levels
    if levels is None or not data.size("train") > dim <= 4096:
        return None
    key_train, key_test = jr.split(key)

    def blocks(part, total, key, size=4096):
        for start in range(0, total, size):
            x, _ = data.rows(part, start, min(start + size, total))
            yield np.asarray(dequantise(x, levels, jr.fold_in(key, start)), np.float64).reshape(-1, dim)

    total = data.size("train")
    mean, second = np.zeros(dim), np.zeros((dim, dim))
    for x in blocks("train", total, key_train):
        mean += x.sum(axis=0) / total
        second += x.T @ x / total
    cov = (second - np.outer(mean, mean)) * total / (total - 1)
    precision, log_det = np.linalg.inv(cov), np.linalg.slogdet(cov).logabsdet
    test = blocks(split, n, key_test)
    quadratic = np.concatenate([np.sum((x - mean) @ precision * (x - mean), axis=1) for x in test])
    log_probs = -0.5 * (quadratic + log_det + dim * math.log(2 * math.pi))
    return average(np.asarray(bits_per_dim(log_probs.astype(np.float32), dim, levels=levels)))
