"""Figures of a training: its process, its loss and its weights."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from sgm.parallel.processes import gather
from sgm.plot.base import Figure, axes_in_a_row
from sgm.sde.process import AbstractProcess

_BINS = 1000


def objective(metrics: list[dict[str, float]]) -> Figure:
    """Draw the loss and the gradient's norm of every step, their running means and the held-out loss.

    The means are over a hundredth of the run, and the held-out loss is drawn where it was logged.

    Arguments:
        metrics: Lines of a run's `metrics.jsonl`, one a step.

    Returns:
        The figure.

    Example:
        >>> lines = [{"step": step, "loss": 1 / step, "gradient_norm": 2 / step} for step in range(1, 201)]
        >>> figure = sgm.plot.objective(lines)  # of a run: each line of its metrics.jsonl, by json.loads
    """
    figure, axes = axes_in_a_row(2, (11, 3.5))
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
    """Draw the root mean square of the entries of each array, and the sizes between which 90% of them lie.

    Entries of zero, and those that are not finite, are left out. Arrays that are cut over devices, or over processes
    that all call this, stay where they are.

    Arguments:
        tree: Arrays.
        title: Title of the figure.

    Returns:
        The figure.

    Example:
        >>> network = sgm.nn.MLP((2,), width=16, depth=2, key=key)
        >>> figure = sgm.plot.arrays(eqx.filter(network, eqx.is_inexact_array), "initial weights")
    """
    figure, axes = axes_in_a_row(1, (11, 4))
    named = jax.tree_util.tree_leaves_with_path(tree)
    sizes = sizes_of([leaf for _, leaf in named])
    shown = np.flatnonzero(sizes[:, 0])
    _, means, lows, highs = sizes[shown].T
    axes[0].vlines(shown, lows, highs, color="0.7")
    axes[0].scatter(shown, means, s=12, zorder=3)
    every = math.ceil(len(named) / 40)
    names = [jax.tree_util.keystr(path, simple=True, separator=".").removeprefix("network.") for path, _ in named]
    axes[0].set_xticks(range(0, len(named), every), names[::every], rotation=90, fontsize=6)
    axes[0].set(yscale="log" if len(shown) else "linear", ylabel="size", title=title)
    return figure


def sizes_of(arrays: Sequence[Any]) -> Float[np.ndarray, "arrays 4"]:
    """Find the sizes of the entries of arrays that are neither zero nor infinite. All processes call it together.

    Each process counts the entries that it has, and tells the others the counts alone.

    Arguments:
        arrays: Arrays.

    Returns:
        Of each, the number of entries, their root mean square, and the sizes below which 5% and 95% of them are, to a
        thousandth of the logarithm of the span of all sizes.
    """
    logs = [_own_logs(array) for array in arrays]
    own = np.zeros((len(logs), 4))
    for place, log in enumerate(logs):
        ends = np.min(log, initial=np.inf), np.max(log, initial=-np.inf)
        own[place] = len(log), np.sum(np.exp(2 * log.astype(float))), *ends
    found = np.stack([columns["own"] for columns in gather({"own": own})])
    counts, squares = found[..., 0].sum(0), found[..., 1].sum(0)
    lows, highs = found[..., 2].min(0, initial=np.inf), found[..., 3].max(0, initial=-np.inf)
    lows, highs = np.where(counts, lows, 0), np.where(counts, np.maximum(highs, lows + 1e-6), 1)
    bins = np.zeros((len(logs), _BINS), int)
    for place, log in enumerate(logs):
        bins[place] = np.histogram(log, _BINS, (lows[place], highs[place]))[0]
    bins = np.sum([columns["bins"] for columns in gather({"bins": bins})], axis=0)
    sizes = np.zeros((len(logs), 4))
    for place, (count, below) in enumerate(zip(counts, np.cumsum(bins, axis=1), strict=True)):
        edges = np.linspace(lows[place], highs[place], _BINS + 1)
        between = np.interp((0.05 * count, 0.95 * count), np.append(0, below), edges)
        sizes[place] = count, np.sqrt(squares[place] / max(count, 1)), *np.exp(between)
    return sizes


def _own_logs(array: Any) -> Float[np.ndarray, " n"]:
    """Logarithms of the sizes of this process's entries of an array, each once."""
    whole = not isinstance(array, jax.Array)
    parts = [array] if whole else [part.data for part in array.addressable_shards if part.replica_id == 0]
    sizes = [np.abs(np.asarray(part, np.float32)).ravel() for part in parts]
    every = np.concatenate([np.zeros(0, np.float32), *sizes])
    return np.log(every[(every > 0) & np.isfinite(every)])


def process(sde: AbstractProcess) -> Figure:
    """Draw what a process does over [t0, t1]: of real numbers alpha and sigma, log-SNR, f and g.

    Arguments:
        sde: Process.

    Returns:
        The figure.

    Example:
        >>> figure = sgm.plot.process(sgm.VE())
    """
    t = jnp.linspace(sde.t0, sde.t1, 500)
    figure, axes = axes_in_a_row(3, (11, 3))
    curves = sde.curves(t)
    for axis, lines in zip(axes, curves, strict=True):
        for label, values in lines.items():
            axis.plot(t, values, label=label)
        axis.set(xlabel="t")
        axis.legend(frameon=False)
    largest = max(float(jnp.max(values)) for lines in (curves[0], curves[2]) for values in lines.values())
    if largest > 20:
        at_the_end = max(float(values[-1]) for values in curves[0].values())
        axes[0].set_yscale("log" if at_the_end > 20 else "linear")
        axes[2].set_yscale("symlog", linthresh=1.0)
    figure.suptitle(type(sde).__name__)
    return figure
