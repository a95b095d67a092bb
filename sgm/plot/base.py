"""What all figures share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float

from sgm.parallel.processes import is_first

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = "matplotlib.figure.Figure"  # matplotlib is loaded when a figure is drawn, since it takes half a second

# Batches of examples; the functions check the shapes themselves, to say what to pass.
Batch = Float[Array | np.ndarray, "..."]
Points = Float[Array | np.ndarray, "n 2"]

# Channels or columns beyond these are left out: they would be too small to see.
SHOWN = 8


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG. Of several processes, the first writes it.

    Arguments:
        figure: Figure.
        path: File.

    Example:
        >>> figure = sgm.plot.points({"draws": np.random.default_rng(0).normal(size=(500, 2))})
        >>> sgm.plot.save(figure, "draws.png")
    """
    if is_first():
        figure.savefig(path, dpi=110, bbox_inches="tight")


def empty_figure(size: tuple[float, float]) -> Figure:
    """A figure without axes, of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def axes_in_a_row(columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure and its axes, side by side."""
    figure = empty_figure(size)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def check_batch(call: str, name: str, x: Any, axes: str, one: str) -> None:
    """Raise ValueError unless `x` is a batch of the axes (n, ...)."""
    rank = axes.count(",") + 2
    if x.ndim != rank or (axes.endswith("2") and x.shape[-1] != 2):
        raise ValueError(f"{call}: {name} has shape {x.shape}; pass a batch (n, {axes}): x[None] of one {one} alone.")
