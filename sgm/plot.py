"""Figures. Each function draws one and returns it; `save` writes it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, PyTree

from sgm.sde.base import AbstractSDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = "matplotlib.figure.Figure"  # matplotlib is loaded when a figure is drawn, since it takes half a second

# Batches of examples; the functions check the shapes themselves, to say what to pass.
Batch = Float[Array | np.ndarray, "..."]
Points = Float[Array | np.ndarray, "n 2"]

# Channels or columns beyond these are left out: they would be too small to see.
_SHOWN = 8


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    figure.savefig(path, dpi=110, bbox_inches="tight")


def is_of_the_plane(shape: tuple[int, ...]) -> bool:
    """Whether examples of a shape are points of the plane."""
    return shape == (2,)


def manner(shape: tuple[int, ...]) -> str | None:
    """How `examples` draws examples of a shape, where that does not go without saying; None where it does.

    Points of the plane and images of 1 or 3 channels go without saying.
    """
    many = shape[-1] if shape else 0
    shown = f"the first {_SHOWN} of {many}" if many > _SHOWN else "the"
    if is_of_the_plane(shape) or (len(shape) == 3 and many in (1, 3)):
        return None
    if len(shape) == 1:
        return f"a corner plot of {shown} columns; paths are left out"
    if len(shape) == 2:
        return f"lines, a colour for each of {shown} channels"
    if len(shape) == 3:
        return "RGB and alpha, on white" if many == 4 else f"{shown} channels side by side, in grey"
    return f"none, for examples of shape {shape}: tables, signals (length, channels) and images are drawn"


def examples(panels: Mapping[str, Batch]) -> Figure:
    """Draw batches of examples under their titles, in the manner of their shape.

    Arguments:

    - `panels`: from titles to batches of one shape: tables (n, columns), of any number of titles; signals (n, length,
      channels) or images (n, height, width, channels) with entries in [-1, 1], of one title.

    Raises ValueError for other shapes.
    """
    (title, x), *others = panels.items()
    if x.ndim == 2:
        return points(panels) if x.shape[-1] == 2 else corner(panels)
    if x.ndim not in (3, 4) or others:
        shapes = ", ".join(str(batch.shape) for batch in panels.values())
        raise ValueError(
            f"examples: the panels have shapes {shapes}; pass tables (n, columns), or one batch of signals (n, length, "
            "channels) or images (n, height, width, channels)."
        )
    return signal_grid(x, title) if x.ndim == 3 else image_grid(x, title)


def image_grid(images: Batch, title: str = "") -> Figure:
    """Draw images in rows and columns, as near to a square as they go.

    Arguments:

    - `images`: (n, height, width, channels) with entries in [-1, 1]. One channel is grey, three are RGB, four are RGB
      and alpha, laid on white; others stand side by side in grey, at most eight.

    Raises ValueError for an array of another rank, as one image alone.
    """
    _check_batch("image_grid", "images", images, "height, width, channels", "image")
    padded = _padded(images)
    columns = _columns(len(padded), padded.shape[2] / padded.shape[1])
    filled = np.pad(padded, ((0, -len(padded) % columns), (0, 0), (0, 0), (0, 0)), constant_values=1)
    tiled = rearrange(filled, "(r c) h w k -> (r h) (c w) k", c=columns)
    return _picture(tiled, (5, 5), title)


def film_strip(frames: Batch, title: str = "") -> Figure:
    """Draw a row for each example, its frames from left to right; frames of noise are scaled to their own range.

    Arguments:

    - `frames`: (n, times, height, width, channels), with channels as in `image_grid`.

    Raises ValueError for an array of another rank, as the frames of one image alone.
    """
    _check_batch("film_strip", "frames", frames, "times, height, width, channels", "film")
    flat = np.asarray(frames, np.float32)
    reach = np.maximum(np.quantile(np.abs(flat), 0.9, axis=(2, 3, 4), keepdims=True), 1)
    padded = _padded(rearrange(flat / reach, "n t h w k -> (n t) h w k"))
    tiled = rearrange(padded, "(n t) h w k -> (n h) (t w) k", n=flat.shape[0])
    stretch = math.sqrt(padded.shape[2] / padded.shape[1])
    return _picture(tiled, (flat.shape[1] * stretch, flat.shape[0] / stretch), title)


def signal_grid(signals: Batch, title: str = "") -> Figure:
    """Draw signals as lines, in rows and columns on one scale, with a colour for each channel.

    Arguments:

    - `signals`: (n, length, channels), of which at most eight channels are shown.

    Raises ValueError for an array of another rank, as one signal alone.
    """
    _check_batch("signal_grid", "signals", signals, "length, channels", "signal")
    flat = np.asarray(signals, np.float32)
    columns = _columns(len(flat), 2)
    filled = np.pad(flat, ((0, -len(flat) % columns), (0, 0), (0, 0)), constant_values=np.nan)
    return _lines(rearrange(filled, "(r c) l k -> r c l k", c=columns), title)


def signal_strip(frames: Batch, title: str = "") -> Figure:
    """Draw a row for each signal, its frames from left to right on one scale, with a colour for each channel.

    Arguments:

    - `frames`: (n, times, length, channels), of which at most eight channels are shown.

    Raises ValueError for an array of another rank, as the frames of one signal alone.
    """
    _check_batch("signal_strip", "frames", frames, "times, length, channels", "film")
    return _lines(np.asarray(frames, np.float32), title)


def corner(panels: Mapping[str, Batch]) -> Figure:
    """Draw each column's histogram, and a cloud of points for each pair of columns, a colour for each title.

    Arguments:

    - `panels`: from titles to tables (n, columns), of which at most eight columns are shown. The axes have the range of
      the first table.

    Raises ValueError for an array of another rank, as one row alone.
    """
    for name, table in panels.items():
        _check_batch("corner", repr(name), table, "columns", "row")
    tables = {title: np.asarray(table, np.float32)[:, :_SHOWN] for title, table in panels.items()}
    first = next(iter(tables.values()))
    count = first.shape[1]
    low, high = first.min(axis=0), first.max(axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1)
    low, high = low - margin, high + margin
    figure = _figure((1.6 * count + 1.5, 1.6 * count + 1.5))
    grid = figure.subplots(count, count, squeeze=False).tolist()
    for row, column in np.ndindex(count, count):
        axis = grid[row][column]
        if row < column:
            axis.set_axis_off()
            continue
        for place, table in enumerate(tables.values()):
            if row == column:
                ends = (low[row], high[row])
                axis.hist(table[:, row], bins=40, range=ends, density=True, histtype="step", color=f"C{place}")
            else:
                size = min(max(1, 400 / len(table)), 12)
                axis.scatter(table[:, column], table[:, row], s=size, linewidths=0, color=f"C{place}")
                axis.set_ylim(low[row], high[row])
        axis.set_xlim(low[column], high[column])
        axis.tick_params(labelsize=6, labelbottom=row == count - 1, labelleft=row > column == 0, left=row > column)
    for place in range(count):
        grid[-1][place].set_xlabel(f"column {place}", fontsize=8)
        if place:
            grid[place][0].set_ylabel(f"column {place}", fontsize=8)
    handles = [grid[0][0].plot([], [], color=f"C{place}", label=title)[0] for place, title in enumerate(tables)]
    figure.legend(handles=handles, loc="outside upper right", frameon=False, fontsize=8)
    return figure


def objective(metrics: list[dict[str, float]]) -> Figure:
    """Draw the loss and the gradient's norm of every step, their running means over a hundredth of the run, and the
    held-out loss where it was logged.

    Arguments:
        metrics: Lines of a run's `metrics.jsonl`, one a step.
    """
    figure, axes = _axes(2, (11, 3.5))
    window = max(1, len(metrics) // 100)
    steps = np.asarray([line["step"] for line in metrics])
    held_out = np.asarray([(line["step"], line["held_out_loss"]) for line in metrics if "held_out_loss" in line])
    for axis, name in zip(axes, ("loss", "gradient_norm"), strict=True):
        values = np.asarray([line[name] for line in metrics])
        mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
        axis.plot(steps, values, color="0.8", linewidth=0.5, label="each step")
        axis.plot(steps[window - 1 :], mean, label=f"mean of {window}")
        if name == "loss" and len(held_out):
            axis.plot(*held_out.T, marker=".", label="held out, averaged weights")
            values = np.concatenate([values, held_out[:, 1]])
        axis.set(xlabel="step", ylabel=name.replace("_", " "), yscale="log" if np.all(values > 0) else "linear")
        axis.legend(frameon=False)
    return figure


def arrays(tree: PyTree, title: str) -> Figure:
    """Plot the root mean square of the entries of each array, and the sizes between which 90% of them lie.

    Entries of zero are left out.
    """
    figure, axes = _axes(1, (11, 4))
    named = jax.tree_util.tree_leaves_with_path(tree)
    sizes = [np.abs(np.asarray(leaf)[np.asarray(leaf) != 0]) for _, leaf in named]
    shown = [place for place, entries in enumerate(sizes) if entries.size]
    lows, highs = (np.asarray([np.quantile(sizes[place], share) for place in shown]) for share in (0.05, 0.95))
    axes[0].vlines(shown, lows, highs, color="0.7")
    axes[0].scatter(shown, [np.sqrt(np.mean(sizes[place] ** 2)) for place in shown], s=12, zorder=3)
    every = math.ceil(len(named) / 40)
    names = [jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("network.") for path, _ in named]
    axes[0].set_xticks(range(0, len(named), every), names[::every], rotation=90, fontsize=6)
    axes[0].set(yscale="log", ylabel="size", title=title)
    return figure


def histogram(values: Float[np.ndarray, " n"], quantity: str) -> Figure:
    """How often a quantity has which value; those that are not finite are left out."""
    figure, axes = _axes(1, (5, 3))
    finite = values[np.isfinite(values)]
    axes[0].hist(finite, bins=max(10, min(100, math.isqrt(len(finite)))), color="C0")
    axes[0].axvline(finite.mean(), color="0.2", linewidth=1, label=f"mean {finite.mean():.3f}")
    axes[0].set(xlabel=quantity, ylabel="examples")
    axes[0].legend(frameon=False)
    return figure


def process(sde: AbstractSDE) -> Figure:
    """alpha and sigma, log-SNR, f and g over [t0, t1]."""
    t = jnp.linspace(sde.t0, sde.t1, 500)
    figure, axes = _axes(3, (11, 3))
    rates = {"-f": -sde.drift(t, jnp.ones_like(t)), "g": sde.diffusion(t)}
    curves = ({"alpha": sde.alpha(t), "sigma": sde.sigma(t)}, {"log-SNR": sde.log_snr(t)}, rates)
    for axis, lines in zip(axes, curves, strict=True):
        for label, values in lines.items():
            axis.plot(t, values, label=label)
        axis.set(xlabel="t")
        axis.legend(frameon=False)
    largest = max(float(jnp.max(values)) for values in (*curves[0].values(), *rates.values()))
    if largest > 20:
        axes[0].set_yscale("log" if float(sde.sigma(sde.t1)) > 20 else "linear")
        axes[2].set_yscale("symlog", linthresh=1.0)
    figure.suptitle(type(sde).__name__)
    return figure


def points(panels: Mapping[str, Batch]) -> Figure:
    """Draw clouds of points in the plane, side by side on the same scale.

    Arguments:

    - `panels`: from titles to points (n, 2).

    Raises ValueError for other shapes, as one point alone.
    """
    for name, cloud in panels.items():
        _check_batch("points", repr(name), cloud, "2", "point")
    figure, axes = _axes(len(panels), (3.5 * len(panels), 3.5))
    reach = _reach(next(iter(panels.values())))
    for axis, (title, cloud) in zip(axes, panels.items(), strict=True):
        axis.scatter(*np.asarray(cloud).T, s=1, linewidths=0)
        _plane(axis, reach, title)
    return figure


def plane_grid(cloud: Points, side: int) -> Float[Array, "side side 2"]:
    """Points of a square grid that covers a cloud."""
    reach = _reach(cloud)
    ticks = jnp.linspace(-reach, reach, side)
    return jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1)


def density(grid: Float[Array, "side side 2"], values: Float[Array, "side side"], title: str = "density") -> Figure:
    """A density on `plane_grid`."""
    figure, axes = _axes(1, (4.2, 3.5))
    mesh = axes[0].pcolormesh(grid[..., 0], grid[..., 1], values, shading="auto", rasterized=True)
    _plane(axes[0], float(grid.max()), title)
    figure.colorbar(mesh)
    return figure


def trajectories(paths: Float[Array, "n times 2"], title: str = "probability flow") -> Figure:
    """Paths in the plane, from noise (open) to data (filled), each frame at the scale of the process."""
    figure, axes = _axes(1, (4, 4))
    for path in np.asarray(paths):
        axes[0].plot(*path.T, color="0.6", linewidth=0.4)
    axes[0].scatter(*np.asarray(paths[:, 0]).T, s=6, facecolors="none", edgecolors="C0", linewidths=0.5, label="noise")
    axes[0].scatter(*np.asarray(paths[:, -1]).T, s=4, color="C1", label="data", zorder=3)
    axes[0].set_aspect("equal")
    axes[0].set_title(title)
    axes[0].legend(frameon=False)
    return figure


def _figure(size):
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _axes(columns, size):
    figure = _figure(size)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _check_batch(call, name, x, axes, one):
    rank = axes.count(",") + 2
    if x.ndim != rank or (axes == "2" and x.shape[-1] != 2):
        raise ValueError(f"{call}: {name} has shape {x.shape}; pass a batch (n, {axes}): x[None] of one {one} alone.")


def _columns(count, aspect):
    """The columns and rows of a grid of `count` cells of an aspect, width over height, that is about a square."""
    return min(count, math.ceil((count / aspect) ** 0.5))


def _padded(images):
    """Grey or RGB in [0, 1] with a white margin of one pixel."""
    unit = np.clip((np.asarray(jax.device_get(images)) + 1) / 2, 0, 1)
    if unit.shape[-1] == 4:
        unit = unit[..., 3:] * unit[..., :3] + (1 - unit[..., 3:])
    elif unit.shape[-1] not in (1, 3):
        apart = np.pad(unit[..., :_SHOWN], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1)
        # Examples are farther apart than their channels.
        unit = np.pad(rearrange(apart, "n h w k -> n h (k w) 1"), ((0, 0), (0, 2), (0, 1), (0, 0)), constant_values=1)
    return np.pad(unit, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1)


def _lines(signals, title):
    """Lines in the cells of a grid: (rows, columns, length, channels)."""
    rows, columns, length, channels = signals.shape
    figure, axes = _axes(1, (1.2 * columns + 0.5, 0.6 * rows + 0.5))
    reach = float(np.nanmax(np.abs(signals))) or 1.0
    across = np.arange(columns) + np.linspace(0.05, 0.95, length)[:, None, None]
    places = np.broadcast_to(across, (length, rows, columns)).reshape(length, -1)
    heights = 0.45 * signals / reach - np.arange(rows)[:, None, None, None]
    for channel in range(min(channels, _SHOWN)):
        lines = rearrange(heights[..., channel], "r c l -> l (r c)")
        axes[0].plot(places, lines, color=f"C{channel}", linewidth=0.7)
    axes[0].set(xlim=(0, columns), ylim=(0.5 - rows, 0.5), title=title)
    axes[0].set_axis_off()
    return figure


def _picture(tiled, size, title):
    figure, axes = _axes(1, size)
    axes[0].imshow(tiled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes[0].set_axis_off()
    axes[0].set_title(title)
    return figure


def _plane(axis, reach, title):
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)


def _reach(cloud):
    return 1.15 * float(np.abs(np.asarray(cloud)).max())
