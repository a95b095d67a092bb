"""How good samples of a trained model of digits are by their evaluations: sliced Wasserstein distances to test images.

    python tests/benchmarks/samplers.py --run runs/digits

The distance is the root of the mean, over random directions, of the squared Wasserstein-2 distance of projections; the
training images' own distance to the test images is the floor.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from networks import table

import sgm
from sgm.likelihood import dequantise
from sgm.runs import read_experiment

# By a number of evaluations, of which the last is the denoised end.
METHODS = {
    "Ancestral": (lambda count: sgm.Ancestral(count - 1), (20, 100, 1001)),
    "EulerMaruyama": (lambda count: sgm.EulerMaruyama(count - 1), (20, 100, 1001)),
    "SDEDPMSolverPP": (lambda count: sgm.SDEDPMSolverPP(count - 1), (20, 100)),
    "DDIM": (lambda count: sgm.DDIM(count - 1), (10, 20, 50)),
    "DPMSolverPP, order 2": (lambda count: sgm.DPMSolverPP(count - 1), (5, 10, 20)),
    "DPMSolverPP, order 3": (lambda count: sgm.DPMSolverPP(count - 1, 3), (5, 10, 20)),
    "EDMHeun": (lambda count: sgm.EDMHeun((count - 1) // 2), (11, 21, 35)),
}


@jax.jit
def sliced_wasserstein(x, y):
    """Of as many points in each, along 2,000 random directions."""
    directions = jr.normal(jr.key(0), (x.shape[1], 2000))
    directions = directions / jnp.linalg.norm(directions, axis=0)
    return jnp.sqrt(jnp.mean((jnp.sort(x @ directions, 0) - jnp.sort(y @ directions, 0)) ** 2))


def main(run):
    sde, model = sgm.load(run)
    data = read_experiment(Path(run)).data

    def images(split):
        levels, _ = data.rows(split, 0, data.size(split))
        return dequantise(levels, data.levels, jr.key(1)).reshape(len(levels), -1)

    test, train = images("test"), images("train")
    n, rounds = len(test), 20

    def distances(points):
        """To the test images, of groups of as many points as they are."""
        groups = jnp.asarray(points).reshape(-1, n, test.shape[1])
        values = np.asarray([sliced_wasserstein(group, test) for group in groups])
        return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)

    rows = [("training images", "", *distances(train[: len(train) // n * n]))]
    for label, (make, counts) in METHODS.items():
        for count in counts:
            x = sgm.sample(sde, model, jr.key(2), rounds * n, method=make(count))
            x = model.units.standardise(x).reshape(rounds * n, -1)
            rows.append((label, str(count), *distances(x)))
    digits = ((*row[:2], *(f"{value:.4f}" for value in row[2:])) for row in rows)
    table(("samples", "evaluations", "distance", "standard error"), *digits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/digits")
    main(parser.parse_args().run)
