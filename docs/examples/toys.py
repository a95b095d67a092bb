"""Draw all toys of the plane in one picture: data, samples of the reverse SDE, and the density that was learned.

    for name in swiss_roll spiral moons two_gaussians eight_gaussians checkerboard; do
        sgm --config $name --stages train
    done
    python docs/examples/toys.py runs

Drawn in figs/toys.png. The density is exp of `sgm.log_prob`, by the exact trace.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm import plot
from sgm.plot.base import empty_figure
from sgm.plot.plane import framed
from sgm.runs import read_experiment

NAMES = ("swiss_roll", "spiral", "moons", "two_gaussians", "eight_gaussians", "checkerboard")


def main(runs: Path, figures: Path, names: tuple[str, ...] = NAMES, n: int = 4000, side: int = 120) -> None:
    figure = empty_figure((2.2 * len(names), 6.6))
    axes = figure.subplots(3, len(names), squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        sde, model = sgm.load(runs / name)
        data = read_experiment(runs / name).data.rows("train", 0, n)[0]
        samples = sgm.sample(sde, model, jr.key(0), n)
        grid = plot.plane_grid(data, side)
        log_prob = sgm.log_prob(sde, model, grid.reshape(-1, 2), trace=sgm.Exact())
        reach = float(jnp.max(grid))
        for axis, cloud in zip(column, (data, samples), strict=False):
            axis.scatter(*np.asarray(cloud).T, s=1, linewidths=0, rasterized=True)
        column[2].pcolormesh(*jnp.moveaxis(grid, -1, 0), jnp.exp(log_prob).reshape(side, side), rasterized=True)
        for axis, title in zip(column, (name.replace("_", " "), "", ""), strict=True):
            framed(axis, reach, title)
            axis.set(xticks=[], yticks=[])
        print(f"{name}: drawn", flush=True)
    for axis, label in zip(axes[:, 0], ("data", "samples", "learned density"), strict=True):
        axis.set_ylabel(label)
    plot.save(figure, figures / "toys.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / "figs")
    given = parser.parse_args()
    main(given.runs, given.folder)
