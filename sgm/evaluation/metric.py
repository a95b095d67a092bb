"""What a metric is, and what it is told."""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from sgm.data import AbstractDataset
from sgm.likelihood import AbstractDequantisation
from sgm.nn.condition import condition_from
from sgm.plot import Figure
from sgm.posterior.support import Support, within
from sgm.sample import sample
from sgm.solve import AbstractSamplingMethod

Columns = dict[str, np.ndarray]
_ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a report.

    Arguments:
        name: Name of the quantity.
        value: Value.
        stderr: Standard error, None where it has none.
        unit: Unit of the value.
        note: What else is to be said of it.
        is_score: Whether it measures the model. False for what a score is compared with, and for costs.

    Example:
        >>> row = Row.mean("distance", np.asarray([1.0, 2.0, 3.0]), unit="Mpc", note="to the nearest example")
        >>> print(row)
        distance                 2.0000 ± 0.5774 Mpc (to the nearest example)
    """

    name: str
    value: float
    stderr: float | None = None
    unit: str = ""
    note: str = ""
    is_score: bool = True

    @classmethod
    def mean(cls, name: str, values: np.ndarray, unit: str = "", note: str = "", is_score: bool = True) -> "Row":
        """The mean of the finite values and its standard error; nan where there is none. What is left out is said."""
        finite = np.asarray(values, np.float64)[np.isfinite(values)]
        left_out = len(values) - len(finite)
        said = f"{left_out} of {len(values)} are not finite, and left out" if left_out else ""
        note = "; ".join(part for part in (note, said) if part)
        stderr = float(finite.std(ddof=1) / len(finite) ** 0.5) if len(finite) > 1 else None
        return cls(name, float(finite.mean()) if len(finite) else float("nan"), stderr, unit, note, is_score)

    def __str__(self):
        value = f"{self.value:.4f}" if 1e-3 <= abs(self.value) < 1e6 or self.value == 0 else f"{self.value:.3g}"
        error = "" if self.stderr is None else f"± {self.stderr:.4f}"
        note = f"({self.note})" if self.note else ""
        return " ".join([f"{self.name:<24}", *(part for part in (value, error, self.unit, note) if part)])


@dataclasses.dataclass(frozen=True)
class Context:
    """What is evaluated.

    Arguments:
        sde: Process.
        model: Model.
        data: Data set.
        split: Split of it.
        sampler: Method that draws samples, for metrics of samples; None for that of the process.
        dequantisation: Rule that makes real numbers of grey levels.
        key: Key of all randomness that is not of one batch.
        support: Support outside of which samples are drawn anew; None for all of space.

    Example:
        >>> context = Context(sde, model, data, "test", sgm.DDIM(10), sgm.likelihood.UniformDequantisation(), key)
        >>> columns = SlicedWasserstein().columns(context, *data.rows("test", 0, 4), jr.key(1))  # as `evaluate` does
    """

    sde: Any
    model: Any
    data: AbstractDataset
    split: str
    sampler: AbstractSamplingMethod | None
    dequantisation: AbstractDequantisation
    key: PRNGKeyArray
    support: Support | Callable[[Array], Any] | None = None

    def real(self, x: Any, key: PRNGKeyArray, dequantisation: AbstractDequantisation | None = None) -> Any:
        """Examples as real numbers in the data's units: grey levels are dequantised, by default as in training.

        Those of a model of categories keep their values, as its draws do.
        """
        if self.model.takes_levels:
            return np.asarray(x, np.float32)
        if self.data.levels is None:
            return x
        # Of all levels, whose range is [-1, 1) of standardised data.
        rule = self.dequantisation if dequantisation is None else dequantisation
        standardised = rule.training(jax.numpy.asarray(x), self.data.levels, key)
        return self.model.units.restore(standardised)


class AbstractMetric(eqx.Module):
    """A quantity of a model on a data set. It is found in two steps: numbers of each example, then of them all."""

    def check(self, context: Context) -> None:
        """Raise ValueError for what it cannot evaluate."""

    @abstractmethod
    def columns(self, context: Context, x: np.ndarray, fields: dict[str, np.ndarray], key: PRNGKeyArray) -> Columns:
        """Find numbers of each example of a batch.

        Arguments:
            context: What is evaluated.
            x: Examples as the data set stores them: real numbers in its units, or grey levels.
            fields: Their conditions.
            key: Key of the batch.

        Returns:
            Arrays by their names, with one row an example.
        """

    @abstractmethod
    def rows(self, context: Context, columns: Columns) -> list[Row]:
        """The lines of the report, from the numbers of all examples."""

    def figures(self, context: Context, columns: Columns) -> dict[str, Figure]:
        """Figures by their names, from the numbers of all examples; none by default."""
        return {}


def samples_like(context: Context, n: int, fields: dict[str, np.ndarray], key: PRNGKeyArray) -> np.ndarray:
    """Draw a sample for each of the `n` conditions in `fields`, in the data's units and within the support.

    Categories are given as real numbers.

    Raises:
        ValueError: for a sample that is not found within the support.
    """

    def draw(places, key):
        cond = condition_from({name: values[places] for name, values in fields.items()})
        x = sample(context.sde, context.model, key, n, cond=cond, method=context.sampler)
        return x.astype(np.float32) if context.model.takes_levels else x

    wanted = np.arange(n)
    if context.support is None:
        return np.asarray(draw(wanted, key))
    found = np.zeros((n, *context.model.shape), np.float32)
    for attempt in range(_ATTEMPTS):
        places = np.resize(wanted, n)  # of the same number every time, so that they share one compiled function
        x = draw(places, jr.fold_in(key, attempt))
        inside = np.asarray(within("evaluate", context.support, x, context.model.shape))
        x = np.asarray(x)
        # A sample that is not finite is left to the metric, which says so.
        keeps = inside | ~np.all(np.isfinite(x), axis=tuple(range(1, x.ndim)))
        kept, first = np.unique(places[keeps], return_index=True)
        found[kept] = x[keeps][first]
        wanted = np.setdiff1d(wanted, kept)
        if not len(wanted):
            return found
    raise ValueError(
        f"evaluate: {len(wanted)} of {n} samples are not found within the support in {_ATTEMPTS} attempts; pass a "
        "support that holds more of the model, or a model that is trained on examples within it."
    )
