"""Metrics of a data set, batch by batch, and their report."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from sgm.checks import check_count, check_instance, check_key
from sgm.data import AbstractDataset
from sgm.evaluation.metric import AbstractMetric, Columns, Context, Row
from sgm.likelihood import AbstractDequantisation, UniformDequantisation
from sgm.model.reverse import AbstractReverseModel, check_fit, check_pair
from sgm.parallel.processes import gather, is_first, told_of_lost_processes
from sgm.plot import Figure
from sgm.posterior.support import Support, check_support, within
from sgm.sde.process import AbstractProcess
from sgm.solve import AbstractSamplingMethod

# Where a table has the shapes of entries that are arrays, which are stored as lists.
_SHAPES = b"shapes"


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found. Printed, it has a line for each row.

    Arguments:
        split: Split of the data.
        examples: Number of examples.
        rows: Lines of all metrics.
        columns: Numbers of each example, by their names.
        seconds: Wall time of the batches, without those that were found on disk.
        parts: Each metric with its own columns.
        context: What was evaluated.

    Example:
        >>> report = sgm.evaluate(sde, model, data, [Calibration(draws=20)], key, sampler=sgm.DDIM(10))
        >>> p_value = report["calibration_p_0"].value
        >>> ranks = report.columns["calibration_rank"]  # a row a test example
        >>> figure = report.figures()["calibration"]
    """

    split: str
    examples: int
    rows: tuple[Row, ...]
    columns: Columns
    seconds: float
    parts: tuple[tuple[AbstractMetric, Columns], ...] = ()
    context: Context | None = None

    def figures(self) -> dict[str, Figure]:
        """Draw the figures of all metrics, by their names; where two metrics share one, the second has `name_2`."""
        figures: dict[str, Figure] = {}
        for number, (metric, columns) in enumerate(self.parts):
            assert self.context is not None
            drawn = metric.figures(self.context, columns)
            figures |= {name + f"_{number + 1}" * (name in figures): figure for name, figure in drawn.items()}
        return figures

    def __getitem__(self, name: str) -> Row:
        """The row of this name."""
        rows = {row.name: row for row in self.rows}
        if name not in rows:
            raise KeyError(f"Report: there is no row {name!r}; there are {', '.join(rows)}.")
        return rows[name]

    def __str__(self):
        head = f"{self.split} set, {self.examples} examples, {self.seconds:.0f} s in this call"
        return "\n".join([head, *(f"  {row}" for row in self.rows)])

    def to_json(self) -> dict[str, Any]:
        """The report as JSON. A value that is not finite is None."""
        rows = {row.name: dataclasses.asdict(row) for row in self.rows}
        for row in rows.values():
            del row["name"]
            row |= {name: _finite(row[name]) for name in ("value", "stderr")}
        return {"split": self.split, "examples": self.examples, "seconds": self.seconds, "metrics": rows}


def evaluate(
    sde: AbstractProcess,
    model: AbstractReverseModel,
    data: AbstractDataset,
    metrics: Sequence[AbstractMetric],
    key: PRNGKeyArray,
    *,
    split: str = "test",
    n: int | None = None,
    batch_size: int = 100,
    sampler: AbstractSamplingMethod | None = None,
    support: Support | Callable[[Array], Any] | None = None,
    dequantisation: AbstractDequantisation = UniformDequantisation(),
    folder: str | Path | None = None,
    progress: bool = True,
) -> Report:
    """Evaluate metrics on a split of a data set. Several processes share the batches, and each has the whole report.

    Arguments:
        sde: Process.
        model: Model.
        data: Data set.
        metrics: Metrics of `sgm.evaluation`, or your own. Where two have rows or columns of one name, those of the
            later one end in its place: `log_prob_2` is of the second metric.
        key: Key of all randomness.
        split: Split of the data.
        n: Number of examples from the start of the split; None for all.
        batch_size: Number of examples at a time.
        sampler: Method that draws samples, for metrics of samples; by default as `sgm.sample` has it.
        support: Support of the samples, as that of `sgm.posterior.sample_within`: those outside of it are drawn anew.
            The prior of a posterior that leaks out of it; by default all of space.
        dequantisation: Rule that makes real numbers of grey levels.
        folder: Folder in which each batch is stored once it is done. Batches that are found there are not computed
            again: it must be a folder for this model and these arguments alone.
        progress: Whether a bar is shown.

    Returns:
        The report.

    Raises:
        TypeError: for arguments of other types.
        ValueError: for data that are not of the model, a split without examples, what a metric cannot evaluate, and
            samples that are not found within the support.

    Example:
        >>> metrics = [ContinuousBound(), SlicedWasserstein()]
        >>> report = evaluate(sde, model, data, metrics, key, sampler=sgm.DDIM(10))
        >>> print(report)
        test set, 4 examples, ...
        >>> nats = report["continuous_bound"].value
    """
    check_pair("evaluate", sde, model)
    check_instance("evaluate", "data", data, AbstractDataset, "sgm.data.Arrays(x)")
    check_fit("evaluate", model, data.shape, data.levels)
    check_instance("evaluate", "metrics", metrics, Sequence, remedy="pass a list, as [sgm.evaluation.LogLikelihood()]")
    check_key("evaluate", key)
    check_count("evaluate", "batch_size", batch_size)
    total = data.size(split) if n is None else min(check_count("evaluate", "n", n), data.size(split))
    if total == 0:
        raise ValueError(f"evaluate: the split {split!r} is empty; evaluate another, or give it examples.")
    if support is not None:  # Asked once for its mistakes, before anything is drawn.
        check_support("evaluate", support, model.shape)
        within("evaluate", support, jnp.zeros(model.shape), model.shape)
    context = Context(sde, model, data, split, sampler, dequantisation, jr.fold_in(key, 2**32 - 1), support)
    for metric in metrics:
        check_instance("evaluate", "metrics", metric, AbstractMetric, "sgm.evaluation.LogLikelihood()")
        metric.check(context)
    rows, columns, parts, seconds = {}, {}, [], 0.0
    for number, metric in enumerate(metrics):
        part = None if folder is None else Path(folder) / f"{number}_{type(metric).__name__}"
        found, took = _columns(metric, context, jr.fold_in(key, number), total, min(batch_size, total), part, progress)
        seconds += took
        place = f"_{number + 1}"
        own = [
            dataclasses.replace(row, name=row.name + place * (row.name in rows)) for row in metric.rows(context, found)
        ]
        rows |= {row.name: row for row in own}
        parts.append((metric, found))
        columns |= {name + place * (name in columns): values for name, values in found.items()}
    return Report(split, total, tuple(rows.values()), columns, seconds, tuple(parts), context)


def _columns(metric, context, key, total, batch_size, folder, progress) -> tuple[Columns, float]:
    """The columns of all batches, and the time that the new ones took."""
    from tqdm.auto import tqdm  # here, because it looks for a notebook when it is imported

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    parts, seconds = {}, 0.0
    name = type(metric).__name__
    every = range(0, total, batch_size)
    # Each process has its share of the batches.
    own = every[jax.process_index() :: jax.process_count()]
    count = sum(min(start + batch_size, total) - start for start in own)
    hidden = not (progress and is_first())
    with tqdm(desc=f"{name} of {context.split}", total=count, unit="example", disable=hidden) as bar:
        for start in own:
            stop = min(start + batch_size, total)
            path = None if folder is None else folder / f"{start:09d}-{stop:09d}.parquet"
            if path is not None and path.exists():
                parts[start] = read_columns(path)
            else:
                began = time.perf_counter()
                if not parts:
                    bar.set_postfix_str("compiling")
                # The last batch reaches back to be as long as the others, so that all share one compiled function.
                first = min(start, total - batch_size)
                x, fields = context.data.rows(context.split, first, first + batch_size)
                found = metric.columns(context, x, fields, jr.fold_in(key, start))
                parts[start] = {name: np.asarray(values)[start - first :] for name, values in found.items()}
                seconds += time.perf_counter() - began
                if path is not None:
                    write_columns(path, parts[start])
            bar.set_postfix_str("", refresh=False)
            bar.update(stop - start)
    gathered: dict[str, np.ndarray] = {}
    with told_of_lost_processes("evaluate"):
        own_parts = {f"{start}/{name}": values for start, part in parts.items() for name, values in part.items()}
        for found in gather(own_parts):
            gathered |= found
    names = dict.fromkeys(name.partition("/")[2] for name in gathered)
    return {name: np.concatenate([gathered[f"{start}/{name}"] for start in every]) for name in names}, seconds


def write_columns(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns to a parquet file, whole or not at all.

    Arguments:
        path: File.
        columns: Columns by their names, of shape (n, ...); entries that are arrays become lists.

    Example:
        >>> columns = {"log_prob": np.zeros(8), "draws": np.zeros((8, 100, 2))}
        >>> write_columns("scores.parquet", columns)
    """
    import pyarrow  # here, because it takes a while to import
    import pyarrow.parquet

    path = Path(path)
    part = path.with_suffix(".part")
    shapes = {name: values.shape[1:] for name, values in columns.items() if values.ndim > 1}
    arrays = {
        name: list(values.reshape(len(values), math.prod(shapes[name]))) if name in shapes else values
        for name, values in columns.items()
    }
    table = pyarrow.table(arrays).replace_schema_metadata({_SHAPES: json.dumps(shapes)})
    pyarrow.parquet.write_table(table, part)
    part.replace(path)


def read_columns(path: str | Path) -> Columns:
    """Read a table of examples, as `evaluation.parquet` of a run.

    Arguments:
        path: Parquet file.

    Returns:
        Each column by its name, of the shape that it was written in.

    Example:
        >>> write_columns("scores.parquet", {"log_prob": np.zeros(8), "draws": np.zeros((8, 100, 2))})
        >>> read_columns("scores.parquet")["draws"].shape
        (8, 100, 2)
    """
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    # Tables of before shapes were stored have lists as they are.
    shapes = json.loads((table.schema.metadata or {}).get(_SHAPES, b"{}"))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    columns |= {name: np.stack(values) for name, values in columns.items() if values.dtype == object and len(values)}
    return {name: values.reshape(len(values), *shapes.get(name, values.shape[1:])) for name, values in columns.items()}


def _finite(value):
    return None if value is None or not np.isfinite(value) else value
