"""Draw why one model serves every process: the same paths, walked at other speeds and seen at other scales.

    python docs/examples/universal_path.py

Seven points are led along the probability flow of an exact model of two Gaussians, under VP, VE and rectified flow,
each from the noise level 3 to -4. On the left all three are drawn as u = x / rho(t) over the noise level l: they
coincide. On the right each is drawn as x over the process's own time. Drawn in figs/universal_path.png.
"""

from pathlib import Path

import diffrax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm import plot
from sgm.plot.base import empty_figure

PROCESSES = {"VP": sgm.VP(), "VE": sgm.VE(sigma_max=50.0), "Rectified": sgm.Rectified()}
MODEL = sgm.model.GaussianMixture(jnp.asarray([[-1.2], [0.8]]), jnp.asarray([0.15, 0.25]), jnp.asarray([0.4, 0.6]))
STARTS = jnp.asarray([-1.8, -1.0, -0.4, -0.05, 0.3, 0.9, 1.7])[:, None]
FIRST, LAST, FRAMES = 3.0, -4.0, 200
COLOURS = {"VP": "C0", "VE": "C1", "Rectified": "C2"}
STYLES = {"VP": "-", "VE": "--", "Rectified": ":"}


def paths(sde: sgm.sde.AbstractSDE) -> tuple[np.ndarray, np.ndarray]:
    """Times and the paths x of the seven points, of shape (7, FRAMES)."""
    times = sde.time(jnp.linspace(FIRST, LAST, FRAMES))
    start = times[0], sde.rho(times[0]) * STARTS
    method, saveat = sgm.ProbabilityFlow(), diffrax.SaveAt(ts=times[1:])
    x = sgm.sample(sde, MODEL, jr.key(0), method=method, start=start, saveat=saveat)
    return np.asarray(times), np.concatenate([np.asarray(start[1]), np.asarray(x)[..., 0]], axis=1)


def main(figures: Path) -> None:
    figure = empty_figure((11, 4.6))
    grid = figure.add_gridspec(3, 2, width_ratios=(1.6, 1))
    universal = figure.add_subplot(grid[:, 0])
    levels, u = jnp.linspace(LAST, FIRST, 300), jnp.linspace(-2.6, 2.6, 400)
    cos, sin = np.asarray(sgm.sde.cos_of(levels)), np.asarray(sgm.sde.sin_of(levels))
    means, stds = np.asarray(MODEL.means)[:, 0, None], np.asarray(MODEL.stds)[:, None]
    means, stds = cos * means, np.sqrt(cos**2 * stds**2 + sin**2)
    parts = np.exp(-(((np.asarray(u)[:, None, None] - means) / stds) ** 2) / 2) / stds
    density = np.einsum("ukl,k->ul", parts, np.asarray(MODEL.weights))
    universal.pcolormesh(levels, u, density**0.5, cmap="Greys", shading="gouraud", rasterized=True)

    for row, (name, sde) in enumerate(PROCESSES.items()):
        times, x = paths(sde)
        look = {"color": COLOURS[name], "linestyle": STYLES[name]}
        level, scale = np.asarray(sde.level(times)), np.asarray(sde.rho(times))
        for number, path in enumerate(x):
            label = name if number == 0 else None
            universal.plot(level, path / scale, linewidth=4 - row, label=label, **look)
        own = figure.add_subplot(grid[row, 1])
        own.plot(times, x.T, color=COLOURS[name], linewidth=1)
        own.set_ylabel(f"x, {name}")
        # Equal steps of the process's time, as it walks along the level.
        ticks = np.asarray(sde.level(jnp.linspace(sde.t0, sde.t1, 41)))
        ticks = ticks[(ticks > LAST) & (ticks < FIRST)]
        universal.plot(ticks, np.full(len(ticks), -2.75 - 0.14 * row), "|", color=COLOURS[name], markersize=7)
    own.set_xlabel("t of the process")
    universal.set(xlabel="noise level l = log(sigma/alpha)", ylabel="u = x / rho(t)", ylim=(-3.2, 2.6))
    universal.legend(loc="upper left")
    plot.save(figure, figures / "universal_path.png")


if __name__ == "__main__":
    main(Path(__file__).parents[2] / "figs")
