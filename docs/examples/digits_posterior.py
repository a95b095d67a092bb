"""Inpaint half of each digit and denoise others, by a model that was trained on neither.

    sgm
    python docs/examples/digits_posterior.py runs/digits

Six test digits each, one a row: the digit, what is seen of it, the path from noise, and its end, as in the figures of
Sohl-Dickstein et al. 2015. The upper half is known, or noise of a quarter of the range of
the levels is added.
Drawn in figs/digits_inpainting.png and figs/digits_denoising.png.
"""

import sys
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr

import sgm
from sgm import plot
from sgm.likelihood import dequantise
from sgm.posterior import Inpainting, MatchedDenoising, PosteriorAncestral
from sgm.runs import read_experiment
from sgm.solve import ThetaGrid

STD = 0.5 * 8.5


def strip(sde, model, x, seen, method):
    """The digits, what is seen of them, five frames of a path of `method(seen)` and its end, one digit a row."""
    ts = ThetaGrid().times(sde, 5)

    def path(seen, key):
        return sgm.sample(sde, model, key, method=method(seen), saveat=diffrax.SaveAt(ts=ts))

    paths = jax.vmap(path)(seen, jr.split(jr.key(1), len(x)))
    return jnp.concatenate([x[:, None], seen[:, None], paths], axis=1)


def main(run: str, figures: Path) -> None:
    sde, model = sgm.load(run)
    levels, _ = read_experiment(Path(run)).data.rows("test", 0, 6)
    x = dequantise(levels, 17, jr.key(0), -0.5, 16.5)
    mask = jnp.zeros(model.shape, bool).at[:4].set(True)
    noisy = x + STD * jr.normal(jr.key(2), x.shape)
    cases = {
        "inpainting": (jnp.where(mask, x, 8), lambda known: PosteriorAncestral(Inpainting(known, mask))),
        "denoising": (noisy, lambda observed: PosteriorAncestral(MatchedDenoising(observed, STD))),
    }
    for name, (seen, method) in cases.items():
        frames = strip(sde, model, x, seen, method)
        title = f"digit, what is seen, from noise: {name}"
        plot.save(plot.film_strip(model.units.standardise(frames), title), figures / f"digits_{name}.png")


if __name__ == "__main__":
    main(sys.argv[1], Path(__file__).parents[2] / "figs")
