"""Draw, guide, complete and interpolate the images of a run of mnist or fashion_mnist.

    sgm --config mnist --stages train
    python docs/examples/mnist.py runs/mnist

It leaves in the folder figs, beginning with the name of the run's folder:

- samples.png: four draws of each class by `DPMSolverPP(19)`, 20 evaluations, above four from the same noise by
  `EulerMaruyama(499)`, 500 evaluations.
- guidance.png: a draw of each class, a row for each weight of classifier-free guidance.
- inpainting.png: ten test images, of which the upper half was measured, and four draws of each posterior. The class is
  not told.
- interpolation.png: six pairs of test images, one a row, and what lies between their latents, on the arc on which their
  size stays that of noise.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import sgm
from sgm import plot
from sgm.likelihood import TruncatedNormalDequantisation
from sgm.model import ClassifierFree, Clipped
from sgm.posterior import MMPS, Linear
from sgm.runs import read_experiment

CLASSES, EACH, COLUMNS, DRAWS, PAIRS, FRAMES = 10, 4, 20, 4, 6, 10
WEIGHTS = (0.0, 1.0, 3.0)
FAST, SLOW = sgm.DPMSolverPP(19), sgm.EulerMaruyama(499)


def clipped(model, data):
    """The same model, whose estimates keep to the levels."""
    return Clipped(model, -0.5, data.levels - 0.5)


def first_images(sde, model, data, n: int) -> jax.Array:
    """The first test images, in their levels, with the noise under which the model was trained."""
    levels = jnp.asarray(data.rows("test", 0, n)[0])
    x, _ = TruncatedNormalDequantisation().draw(sde, levels, data.levels, jr.key(0), -1.0, 1.0)
    return model.units.restore(x)


def samples(sde, model, data, fast=FAST, slow=SLOW):
    cond = sgm.Condition(label=np.tile(np.arange(CLASSES), EACH))
    model = clipped(model, data)
    drawn = [sgm.sample(sde, model, jr.key(1), CLASSES * EACH, cond=cond, method=method) for method in (fast, slow)]
    title = f"{fast.steps + 1} evaluations above, {slow.steps + 1} from the same noise below"
    return jnp.concatenate(drawn).reshape(-1, COLUMNS, *model.shape), title


def guidance(sde, model, data):
    cond = sgm.Condition(label=np.arange(CLASSES))
    guided = [clipped(ClassifierFree(model, jnp.asarray(weight)), data) for weight in WEIGHTS]
    rows = [sgm.sample(sde, model, jr.key(2), CLASSES, cond=cond, method=FAST) for model in guided]
    return jnp.stack(rows), f"weights of guidance: {', '.join(f'{weight:g}' for weight in WEIGHTS)}"


def inpainting(sde, model, data, method=MMPS(iterations=4, sampler=sgm.EulerMaruyama(100))):
    x = first_images(sde, model, data, CLASSES)
    upper = np.arange(model.shape[0])[:, None, None] < model.shape[0] // 2
    y = jnp.where(upper, x, jnp.nan)
    evidence = Linear(lambda x: jnp.where(upper, x, 0.0), y, 1.0)
    drawn = sgm.sample_posterior(sde, model, evidence, jr.key(3), DRAWS, method=method)
    seen = jnp.where(upper, x, model.units.restore(jnp.zeros_like(x)))
    return jnp.stack([x, seen, *jnp.moveaxis(drawn, 1, 0)]), "test images, what is seen, and draws of the whole"


def interpolation(sde, model, data):
    x = first_images(sde, model, data, 2 * PAIRS)
    first, last = sgm.encode(sde, model, x).reshape(2, PAIRS, *model.shape)
    angles = jnp.linspace(0, jnp.pi / 2, FRAMES)[:, *(None,) * len(model.shape)]
    arcs = jnp.cos(angles) * first[:, None] + jnp.sin(angles) * last[:, None]
    frames = sgm.decode(sde, model, arcs.reshape(-1, *model.shape)).reshape(arcs.shape)
    return frames, "from one test image to another"


FIGURES = {part.__name__: part for part in (samples, guidance, inpainting, interpolation)}


def main(run: Path, figures: Path, names: list[str]) -> None:
    (sde, model), data = sgm.load(run), read_experiment(run).data
    for name in names:
        images, title = FIGURES[name](sde, model, data)
        shown = jnp.clip(images, 0, data.levels - 1) * (2 / (data.levels - 1)) - 1
        plot.save(plot.film_strip(shown, title), figures / f"{run.name}_{name}.png")
        print(f"{run.name}_{name}.png", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / "figs")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    given = parser.parse_args()
    main(given.run, given.folder, given.figures)
