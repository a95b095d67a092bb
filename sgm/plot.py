"""Figures. Each function draws one and returns it; `save` writes it."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, PyTree
from matplotlib.figure import Figure

from sgm.sde.base import AbstractSDE

Images = Float[Array | np.ndarray, "n height width channels"]
Points = Float[Array | np.ndarray, "n 2"]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    figure.savefig(path, dpi=110, bbox_inches="tight")


def image_grid(images: Images, title: str = "") -> Figure:
    """Images with entries in [-1, 1], in rows of about as many."""
    columns = math.ceil(len(images) ** 0.5)
    padded = _padded(images)
    missing = -len(padded) % columns
    filled = np.pad(padded, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=1)
    tiled = rearrange(filled, "(r c) h w k -> (r h) (c w) k", c=columns)
    return _picture(tiled, (5, 5), title)


def film_strip(frames: Float[Array | np.ndarray, "n times height width channels"], title: str = "") -> Figure:
    """A row for each example, its frames from left to right; frames of noise are scaled to their own range."""
    flat = np.asarray(frames, np.float32)
    reach = np.maximum(np.quantile(np.abs(flat), 0.9, axis=(2, 3, 4), keepdims=True), 1)
    padded = _padded(rearrange(flat / reach, "n t h w k -> (n t) h w k"))
    tiled = rearrange(padded, "(n t) h w k -> (n h) (t w) k", n=flat.shape[0])
    return _picture(tiled, (flat.shape[1], flat.shape[0]), title)


def objective(metrics: list[dict[str, float]]) -> Figure:
    """Draw the loss and the gradient's norm of every step, their running means over a hundredth of the run, and the
    held-out loss where it was logged.

    Arguments:
        metrics: the lines of a run's `metrics.jsonl`, one a step.
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
    """Of each array, in the tree's order: the root mean square of its entries, and between what sizes 90% of them lie.

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


def points(panels: dict[str, Points]) -> Figure:
    """Clouds of points in the plane, side by side on the same scale."""
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


def _axes(columns, size):
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _padded(images):
    """Levels of grey in [0, 1] with a white margin of one pixel."""
    unit = np.clip((np.asarray(jax.device_get(images)) + 1) / 2, 0, 1)
    return np.pad(unit, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1)


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
