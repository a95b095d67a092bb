"""The error of Euler-Maruyama on each grid, without sampling noise.

    python tests/benchmarks/euler_maruyama_grids.py

For centred Gaussian data the exact score is linear, so the iterates are Gaussian and their variance obeys a recursion.
`end` is the relative error of the standard deviation at t0, `path` its greatest relative error anywhere on the way: a
path far above 1 means that steps overshoot and a trained network is asked about states it never saw. Both are the worst
over data of standard deviation 0.05, 0.2, 0.5, 1 and 2.
"""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import sgm  # noqa: E402
from sgm.sde import Cosine  # noqa: E402
from sgm.solve import KarrasGrid, LogSNRGrid, QuadraticGrid, ThetaGrid, UniformGrid  # noqa: E402

PROCESSES = {
    "VP": sgm.VP(),
    "VP cosine": sgm.VP(Cosine()),
    "SubVP": sgm.SubVP(),
    "VE": sgm.VE(),
    "Rectified": sgm.Rectified(),
}
DATA = np.asarray([0.05, 0.2, 0.5, 1.0, 2.0])


def errors(sde, grid, steps):
    """The worst relative error of the standard deviation at the end and along the path."""
    t = grid.times(sde, steps)
    dt = -np.diff(t)
    alpha, sigma = (np.asarray(part(t)) for part in (sde.alpha, sde.sigma))
    f, g2 = np.asarray(sde.drift(t, jnp.ones_like(t))), np.asarray(sde.diffusion(t)) ** 2
    truth = (alpha[:, None] * DATA) ** 2 + sigma[:, None] ** 2
    variance, worst = np.full(len(DATA), float(sde.rho(sde.t1)) ** 2), np.zeros(len(DATA))
    for step in range(steps):
        factor = 1 - dt[step] * (f[step] + g2[step] / truth[step])
        variance = factor**2 * variance + g2[step] * dt[step]
        worst = np.maximum(worst, np.abs(np.sqrt(variance / truth[step + 1]) - 1))
    return np.abs(np.sqrt(variance / truth[-1]) - 1).max(), worst.max()


def main():
    print("| steps | grid | " + " | ".join(f"{name}: end | path" for name in PROCESSES) + " |")
    print("|---|---|" + "---|---|" * len(PROCESSES))
    for steps in (50, 200, 500, 1000):
        for grid in (UniformGrid(), QuadraticGrid(), ThetaGrid(), KarrasGrid(), LogSNRGrid()):
            cells = (
                f"{end:.1e} | {path:.1e}" for end, path in (errors(sde, grid, steps) for sde in PROCESSES.values())
            )
            print(f"| {steps} | {type(grid).__name__} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
