"""The field behind a masked and noisy map, by an unconditional network, against the exact posterior.

    python docs/examples/field_posterior.py

A UNet is trained on fields of 16x16 pixels alone, for six minutes on two cores. A map of
`sgm.data.GaussianFieldMap` hides a rectangle and adds noise; its posterior is known. MMPS, PiGDM and the rest of
`METHODS` draw from the network's, in as long again. Each row of figs/field_posterior.png is a map: the map, the field,
the exact mean, the mean of 32 draws, their difference in posterior standard deviations from -3 to 3, and a draw. It
prints, for each method, the error of the mean in posterior standard deviations, less that of so many draws, and the
ratio of standard deviations:

    MMPS        0.07  1.03
    PiGDM       0.17  1.04
    DAPS        0.14  1.06
    SplitGibbs  0.12  1.00
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm import plot
from sgm.data import GaussianFieldMap
from sgm.posterior import DAPS, MMPS, Linear, PiGDM, SplitGibbs

MAPS = GaussianFieldMap(resolution=16)
SAMPLER = sgm.EulerMaruyama(100)
METHODS = {
    "MMPS": MMPS(iterations=6, sampler=SAMPLER),
    "PiGDM": PiGDM(sampler=SAMPLER),
    "DAPS": DAPS(),
    "SplitGibbs": SplitGibbs(sweeps=50),
}


def trained(steps: int):
    """A model of the fields, whatever their maps."""
    fields = np.concatenate([MAPS.batch(step, 1000, 0)[0] for step in range(20)])
    data = sgm.data.Arrays(fields, held_out=0.02)
    model = sgm.ScoreModel(sgm.nn.UNet(data.shape, 24, (1, 2), 1, key=jr.key(0)), sgm.model.Karras(), data=data)
    sde, model, _ = sgm.train(sgm.VP(), model, data, jr.key(1), steps=steps, batch_size=32)
    return sde, model


def main(figures: Path, steps: int = 2500, draws: int = 32, rows: int = 4, methods: dict = METHODS) -> dict[str, tuple]:
    """Draw the figure, and return the errors of each method."""
    sde, model = trained(steps)
    x, fields = MAPS.rows("test", 0, rows)
    image = jnp.asarray(fields["image"])
    means, covs = jax.vmap(MAPS.posterior)(image)
    std = jnp.sqrt(jax.vmap(jnp.diag)(covs)).reshape(means.shape)
    y = jnp.where(image[..., 1:] > 0, image[..., :1], jnp.nan)
    found = {}
    for name, method in methods.items():
        evidence = Linear(lambda x: x, y, MAPS.noise_std)
        drawn = sgm.sample_posterior(sde, model, evidence, jr.key(2), draws, method=method)
        mean, own = drawn.mean(axis=1), drawn.std(axis=1, ddof=1)
        square = jnp.mean(((mean - means) / std) ** 2 - (own / std) ** 2 / draws)
        found[name] = float(jnp.sqrt(jnp.maximum(square, 0))), float(jnp.sqrt(jnp.mean((own / std) ** 2)))
        print(f"{name}: mean off by {found[name][0]:.2f}, standard deviations times {found[name][1]:.2f}", flush=True)
        if name == "MMPS":
            columns = [image[..., :1], jnp.asarray(x), means, mean, (mean - means) / std / 3, drawn[:, 0]]
            strip = plot.film_strip(
                jnp.stack(columns, axis=1), "map, field, exact mean, mean of MMPS, difference, a draw"
            )
            plot.save(strip, figures / "field_posterior.png")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2500)
    main(Path(__file__).parents[2] / "figs", parser.parse_args().steps)
