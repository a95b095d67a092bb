"""Figures of a training: its process, its loss and its weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sgm.plot.base import Figure, axes_in_a_row
from sgm.sde.base import AbstractSDE


def objective(metrics: list[dict[str, float]]) -> Figure:
    """Draw the loss and the gradient's norm of every step, their running means and the held-out loss.

    The means are over a hundredth of the run, and the held-out loss is drawn where it was logged.

    Arguments:
        metrics: Lines of a run's `metrics.jsonl`, one a step.

    Returns:
        The figure.
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

    Entries of zero are left out.

    Arguments:
        tree: Arrays.
        title: Title of the figure.

    Returns:
        The figure.
    """
    figure, axes = axes_in_a_row(1, (11, 4))
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


def process(sde: AbstractSDE) -> Figure:
    """Draw alpha and sigma, log-SNR, f and g over [t0, t1].

    Arguments:
        sde: Process.

    Returns:
        The figure.
    """
    t = jnp.linspace(sde.t0, sde.t1, 500)
    figure, axes = axes_in_a_row(3, (11, 3))
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
