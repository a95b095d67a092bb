"""Figures of points of the plane."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgm.plot.base import Batch, Figure, Points, axes_in_a_row, check_batch


def points(panels: Mapping[str, Batch]) -> Figure:
    """Draw clouds of points in the plane, side by side on the same scale.

    Arguments:
        panels: Points (n, 2) by their titles.

    Returns:
        The figure.

    Raises:
        ValueError: for other shapes, as one point alone.

    Example:
        >>> data = sgm.data.Moons().rows("test", 0, 500)[0]
        >>> figure = sgm.plot.points({"data": data, "draws of a model": model.sample(key, 500)})
    """
    for name, cloud in panels.items():
        check_batch("points", repr(name), cloud, "2", "point")
    figure, axes = axes_in_a_row(len(panels), (3.5 * len(panels), 3.5))
    reach = _reach(next(iter(panels.values())))
    for axis, (title, cloud) in zip(axes, panels.items(), strict=True):
        axis.scatter(*np.asarray(cloud).T, s=1, linewidths=0)
        framed(axis, reach, title)
    return figure


def plane_grid(cloud: Points, side: int) -> Float[Array, "side side 2"]:
    """Find the points of a square grid that covers a cloud.

    Arguments:
        cloud: Points (n, 2).
        side: Number of points on a side of the grid.

    Returns:
        The points (side, side, 2).

    Example:
        >>> grid = plane_grid(x, side=50)
        >>> values = jnp.exp(jax.vmap(jax.vmap(model.log_prob))(grid))  # for `density`
        >>> values.shape
        (50, 50)
    """
    reach = _reach(cloud)
    ticks = jnp.linspace(-reach, reach, side)
    return jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1)


def density(
    grid: Float[Array | np.ndarray, "side side 2"],
    values: Float[Array | np.ndarray, "side side"],
    title: str = "density",
) -> Figure:
    """Draw a density on `plane_grid`.

    Arguments:
        grid: Points of the grid (side, side, 2).
        values: Density at each point (side, side).
        title: Title of the figure.

    Returns:
        The figure.

    Example:
        >>> grid = plane_grid(x, side=50)
        >>> values = jnp.exp(jax.vmap(jax.vmap(model.log_prob))(grid))
        >>> figure = sgm.plot.density(grid, values, "a Gaussian")
    """
    figure, axes = axes_in_a_row(1, (4.2, 3.5))
    mesh = axes[0].pcolormesh(grid[..., 0], grid[..., 1], values, shading="auto", rasterized=True)
    framed(axes[0], float(grid.max()), title)
    figure.colorbar(mesh)
    return figure


def trajectories(paths: Float[Array | np.ndarray, "n times 2"], title: str = "probability flow") -> Figure:
    """Draw paths in the plane, from their first points (open, noise) to their last ones (filled, data).

    Arguments:
        paths: Paths (n, times, 2).
        title: Title of the figure.

    Returns:
        The figure.

    Example:
        >>> t = jnp.linspace(1, 0, 20)[:, None]
        >>> paths = (1 - t) * x[:, None] + t * jr.normal(jr.key(3), x.shape)[:, None]  # straight ones
        >>> figure = sgm.plot.trajectories(paths)
    """
    figure, axes = axes_in_a_row(1, (4, 4))
    for path in np.asarray(paths):
        axes[0].plot(*path.T, color="0.6", linewidth=0.4)
    axes[0].scatter(*np.asarray(paths[:, 0]).T, s=6, facecolors="none", edgecolors="C0", linewidths=0.5, label="noise")
    axes[0].scatter(*np.asarray(paths[:, -1]).T, s=4, color="C1", label="data", zorder=3)
    axes[0].set_aspect("equal")
    axes[0].set_title(title)
    axes[0].legend(frameon=False)
    return figure


def framed(axis: Any, reach: float, title: str) -> None:
    """Give an axis the scale and the title of a plane."""
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)


def _reach(cloud: Any) -> float:
    """How far from the origin a plane goes that shows all points."""
    return 1.15 * float(np.nanmax(np.abs(np.asarray(cloud))))
