"""Figures of the columns of tables."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sgm.plot.base import SHOWN, Batch, Figure, axes_in_a_row, check_batch, empty_figure


def corner(panels: Mapping[str, Batch], names: Sequence[str] | None = None) -> Figure:
    """Draw each column's histogram, and a cloud of points for each pair of columns, a colour for each title.

    Arguments:
        panels: Tables (n, columns) by their titles, of which at most eight columns are shown. The axes have the range
            of the first table. Entries that are nan, which are missing, are left out.
        names: Names of the columns: by default their numbers.

    Returns:
        The figure.

    Raises:
        ValueError: for an array of another rank, as one row alone, and for another number of names.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(2, 200, 3))
        >>> figure = sgm.plot.corner({"exact": draws[0], "model": draws[1]}, names=("mass", "radius", "age"))
    """
    for name, table in panels.items():
        check_batch("corner", repr(name), table, "columns", "row")
    columns = next(iter(panels.values())).shape[1]
    names = [f"column {place}" for place in range(columns)] if names is None else names
    if len(names) != columns:
        raise ValueError(f"corner: there are {len(names)} names for {columns} columns; pass a name for each.")
    tables = {title: np.asarray(table, np.float32)[:, :SHOWN] for title, table in panels.items()}
    first = next(iter(tables.values()))
    count = first.shape[1]
    low, high = np.nanmin(first, axis=0), np.nanmax(first, axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1)
    low, high = low - margin, high + margin
    figure = empty_figure((1.6 * count + 1.5, 1.6 * count + 1.5))
    grid = figure.subplots(count, count, squeeze=False).tolist()
    for row, column in np.ndindex(count, count):
        axis = grid[row][column]
        if row < column:
            axis.set_axis_off()
            continue
        for place, table in enumerate(tables.values()):
            if row == column:
                ends = (low[row], high[row])
                axis.hist(
                    table[:, row][~np.isnan(table[:, row])],
                    bins=40,
                    range=ends,
                    density=True,
                    histtype="step",
                    color=f"C{place}",
                )
            else:
                size = min(max(1, 400 / len(table)), 12)
                axis.scatter(table[:, column], table[:, row], s=size, linewidths=0, color=f"C{place}")
                axis.set_ylim(low[row], high[row])
        axis.set_xlim(low[column], high[column])
        axis.tick_params(labelsize=6, labelbottom=row == count - 1, labelleft=row > column == 0, left=row > column)
    for place in range(count):
        grid[-1][place].set_xlabel(names[place], fontsize=8)
        if place:
            grid[place][0].set_ylabel(names[place], fontsize=8)
    handles = [grid[0][0].plot([], [], color=f"C{place}", label=title)[0] for place, title in enumerate(tables)]
    figure.legend(handles=handles, loc="outside upper right", frameon=False, fontsize=8)
    return figure


def histogram(values: Float[np.ndarray, " n"], quantity: str) -> Figure:
    """Draw how often a quantity has which value; values that are not finite are left out.

    Arguments:
        values: Values (n,).
        quantity: Name of the quantity, and its unit.

    Returns:
        The figure.

    Example:
        >>> log_probs = np.asarray(jax.vmap(model.log_prob)(x))
        >>> figure = sgm.plot.histogram(log_probs, "log p, nats")
    """
    figure, axes = axes_in_a_row(1, (5, 3))
    finite = values[np.isfinite(values)]
    axes[0].hist(finite, bins=max(10, min(100, math.isqrt(len(finite)))), color="C0")
    axes[0].axvline(finite.mean(), color="0.2", linewidth=1, label=f"mean {finite.mean():.3f}")
    axes[0].set(xlabel=quantity, ylabel="examples")
    axes[0].legend(frameon=False)
    return figure
