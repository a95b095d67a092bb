"""Recover digits from half of them, from a blur and from four numbers, by a model that was trained on none of this.

    sgm
    python docs/examples/inverse_problems.py runs/digits

Each row is a test digit: the digit, what is seen of it, four draws of the posterior, their mean and their standard
deviation. Drawn in figs/digits_inverse_problems.png. It prints how often the true grey level lies within mean +- 1.96
standard deviations of 64 draws.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm import plot
from sgm.likelihood import dequantise
from sgm.posterior import MMPS, Blur, Downsample, Linear
from sgm.runs import read_experiment

STD, ROWS, DRAWS = 0.5, 3, 64  # STD in grey levels, of 17
UPPER = np.arange(8)[:, None, None] < 4
OPERATORS = {"half hidden": lambda x: jnp.where(UPPER, x, 0.0), "blurred": Blur(1.0), "4x smaller": Downsample(4)}


def main(run: str, figures: Path, draws: int = DRAWS, method: MMPS = MMPS(iterations=16)) -> dict[str, float]:
    """Draw the figure, and return the coverage of each problem."""
    sde, model = sgm.load(run)
    levels, _ = read_experiment(Path(run)).data.rows("test", 0, ROWS)
    x, rows, coverage = dequantise(levels, 17, jr.key(0), -0.5, 16.5), [], {}
    for name, operator in OPERATORS.items():
        clean = jax.vmap(operator)(x)
        y = clean + STD * jr.normal(jr.key(1), clean.shape)
        if name == "half hidden":
            y = jnp.where(UPPER, y, jnp.nan)  # where nothing was measured
        evidence = Linear(operator, y, STD)
        found = sgm.sample_posterior(sde, model, evidence, jr.key(2), draws, method=method)
        mean, std = found.mean(axis=1), found.std(axis=1, ddof=1)
        coverage[name] = float(jnp.mean(jnp.abs(x - mean) <= 1.96 * std * (1 + 1 / draws) ** 0.5))
        seen = jnp.nan_to_num(y) if y.shape == x.shape else jnp.repeat(jnp.repeat(y, 4, axis=1), 4, axis=2)
        parts = [x, seen, *(found[:, place] for place in range(min(4, draws))), mean]
        columns = [model.units.standardise(part) for part in parts]
        rows.append(jnp.stack([*columns, std / 4 - 1], axis=1))  # a standard deviation of 8 levels is white
        print(f"{name}: {100 * coverage[name]:.0f}% of grey levels within 95% intervals", flush=True)
    title = "digit, what is seen, four draws, mean, standard deviation"
    plot.save(plot.film_strip(jnp.concatenate(rows), title), figures / "digits_inverse_problems.png")
    return coverage


if __name__ == "__main__":
    main(sys.argv[1], Path(__file__).parents[2] / "figs")
