"""Go from one digit to another by their latents.

    sgm
    python docs/examples/digits_interpolation.py runs/digits

Six pairs of test digits, one a row: `sgm.encode` leads both to their latents along the probability flow, and
`sgm.decode` leads back the latents between them, on the arc on which their size stays that of noise. Drawn in
figs/digits_interpolation.png.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr

import sgm
from sgm import plot
from sgm.likelihood import dequantise
from sgm.runs import read_experiment

PAIRS, FRAMES = 6, 9


def main(run: str, figures: Path) -> None:
    sde, model = sgm.load(run)
    data = read_experiment(Path(run)).data
    levels, _ = data.rows("test", 0, 2 * PAIRS)
    x = dequantise(levels, data.levels, jr.key(0), -0.5, data.levels - 0.5)
    first, last = sgm.encode(sde, model, x).reshape(2, PAIRS, *model.shape)
    angles = jnp.linspace(0, jnp.pi / 2, FRAMES)[:, *(None,) * len(model.shape)]
    arcs = jnp.cos(angles) * first[:, None] + jnp.sin(angles) * last[:, None]
    frames = sgm.decode(sde, model, arcs.reshape(-1, *model.shape)).reshape(arcs.shape)
    between = model.units.standardise(frames)
    plot.save(plot.film_strip(between, "from one digit to another"), figures / "digits_interpolation.png")


if __name__ == "__main__":
    main(sys.argv[1], Path(__file__).parents[2] / "figs")
