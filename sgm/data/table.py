"""Columns of a table as a data set."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sgm.data.opened import open_file
from sgm.data.stored import AbstractStored, Parts, make_tuples


@dataclasses.dataclass(frozen=True)
class Table(AbstractStored):
    """Rows of a table, each column in its own units; some columns may be conditions.

    Arguments:
        source: A pandas DataFrame, or the path of a .csv or .parquet file, which is read as `Files` reads it.
        columns: Names of the columns that are modelled: by default all that are not in params.
        params: Names of the columns that are conditions.
        held_out: Share of the rows that is held out as the split "test".
        seed: Seed of the choice of held-out rows.
        missing: Whether entries of columns may be missing, which are nan: for a `Transformer`, which learns from the
            others.

    Raises:
        TypeError: for a source that is no DataFrame and no path.
        ValueError: for names that are not in the table, and for columns of text, dates or categories, with missing
            values where these may not be, or of one value. A DataFrame is looked at now, a file when it is first used.
        DataUnavailable: where there is no such file, or it cannot be read, when it is first used.

    Example:
        >>> data = Table(frame, params=("period",))
        >>> data.shape, data.conditioning.params  # the other columns are modelled
        ((5,), 1)
    """

    source: str | Any
    columns: str | tuple[str, ...] | None = None
    params: str | tuple[str, ...] = ()
    _: dataclasses.KW_ONLY
    held_out: float = 0.1
    seed: int = 0
    missing: bool = False

    _remedies: ClassVar[Mapping[str, str]] = {"categories": "pass it among params, or leave it out of columns"}

    def __post_init__(self):
        make_tuples(self, "columns", "params")
        if self.columns == ():
            raise ValueError("Table: columns is empty; name one or more, or leave it out to take all.")
        if not isinstance(self.source, str | Path) and not hasattr(self.source, "columns"):
            raise TypeError(
                f"Table: source is a {type(self.source).__name__}; pass a DataFrame of pandas, the path of a .csv or "
                ".parquet file, or an array to sgm.data.Arrays."
            )
        if hasattr(self.source, "columns"):
            self.check()

    @functools.cached_property
    def parts(self) -> Parts:
        source: Any = self.source
        if hasattr(source, "columns"):
            names, read = tuple(source.columns), functools.partial(_columns, self.source)
        else:
            file = open_file("Table", self.source)
            names, read = file.names, file.columns
        params = _as_tuple(self.params)
        others = tuple(name for name in names if name not in params)
        columns = others if self.columns is None else _as_tuple(self.columns)
        if not columns:
            raise ValueError("Table: all columns are params; leave one or more to be modelled.")
        for name in (*columns, *params):
            if name not in names:
                raise ValueError(f"Table: there is no column {name!r}, only {', '.join(map(str, names))}.")
            if [*columns, *params].count(name) > 1 or list(names).count(name) > 1:
                raise ValueError(f"Table: column {name!r} is there twice, or asked for twice; name each column once.")
        return Parts(read(columns), read(params) if params else None, names=columns)


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _columns(frame: Any, names: tuple[str, ...]) -> np.ndarray:
    """Columns of a DataFrame, side by side."""
    for name in names:
        dtype = frame[name].dtype
        if str(dtype) == "category" or frame[name].to_numpy().dtype.kind not in "fiu":
            raise ValueError(
                f"Table: column {name!r} holds no numbers (dtype {dtype}); turn it into numbers or leave it out of "
                "columns."
            )
    columns = [frame[name].to_numpy() for name in names]
    return np.stack(columns, axis=-1, dtype=np.result_type(np.float32, *columns), casting="unsafe")
