"""How well guided digits fit their labels, and how diverse they are, against the weight of classifier-free guidance.

    python docs/examples/digits_guidance.py

An MLP is trained on 1500 labelled digits, one label in ten left out, for some minutes. For each weight it draws 100
digits of each class. Their accuracy is how often the nearest of the 297 test digits, which the network has not seen,
has the label that was asked for; their spread is the root mean square distance from the mean of their class, over that
of the training digits. Both are printed and drawn in figs/digits_guidance.png, without and with the rescaling of Lin et
al. 2023, above the same noise under each weight.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from einops import rearrange
from matplotlib.figure import Figure

import sgm
from sgm.data import Digits
from sgm.model import ClassifierFree, Clipped
from sgm.training import Adam, KarrasWeighting, Loss, NormalLogSNR

CLASSES, WEIGHTS, RESCALES = 10, (0.0, 0.5, 1.0, 2.0, 4.0), (0.0, 1.0)


def trained(data: Digits, steps: int):
    """A process and a model of digits given their labels, and of digits without."""
    conditioning = sgm.nn.Conditioning(classes=CLASSES, null=True)
    network = sgm.nn.MLP(data.shape, 320, 4, dropout=0.15, conditioning=conditioning, key=jr.key(0))
    model = sgm.ScoreModel(network, sgm.model.Karras(0.7), data=data)
    loss = Loss(KarrasWeighting(0.7), NormalLogSNR(), condition_dropout=0.1)
    how = {"loss": loss, "optimiser": Adam(4e-3), "batch_size": 256}
    return sgm.train(sgm.VP(), model, data, jr.key(1), steps=steps, **how)[:2]


def flat_rows(data: Digits, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All digits of a split as vectors, and their labels."""
    x, fields = data.rows(split, 0, data.size(split))
    return x.reshape(len(x), -1).astype(np.float32), fields["label"]


def nearest(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Index of the nearest of others, for each row of x."""
    square = (x**2).sum(axis=1)[:, None] - 2 * x @ others.T + (others**2).sum(axis=1)
    return square.argmin(axis=1)


def spread(x: np.ndarray, labels: np.ndarray) -> float:
    """Root mean square distance from the mean of the class."""
    return np.sqrt(np.mean([x[labels == label].var(axis=0).sum() for label in range(CLASSES)]))


def draw(found: dict, accuracy: float, rows: np.ndarray) -> Figure:
    """Accuracy and spread against weight, above a row of digits (weights, digits, height, width) for each weight."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    titles = "nearest-neighbour accuracy", "spread, over that of the data"
    for place, (axis, title, reference) in enumerate(zip(above.subplots(1, 2), titles, (accuracy, 1.0), strict=True)):
        for rescale in RESCALES:
            values = [found[rescale, weight][place] for weight in WEIGHTS]
            axis.plot(WEIGHTS, values, "o-", label=f"rescale = {rescale:g}")
        axis.axhline(reference, color="0.5", linewidth=1, linestyle="--", label="training digits")
        axis.set(xlabel="weight of guidance", title=title)
    axis.legend(frameon=False)
    axis = below.subplots()
    apart = np.pad(rows, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=rows.max())
    axis.imshow(rearrange(apart, "w n y x -> (w y) (n x)"), cmap="gray", interpolation="nearest")
    middles = (np.arange(len(WEIGHTS)) + 0.5) * apart.shape[2]
    axis.set(xticks=[], yticks=middles, yticklabels=WEIGHTS, ylabel="weight of guidance")
    return figure


def main(figures: Path, steps: int = 2500, each: int = 100) -> dict[tuple[float, float], tuple[float, float]]:
    """Draw the figure, and return the accuracy and the spread for each share of rescaling and each weight."""
    data = Digits(label=True)
    sde, model = trained(data, steps)
    train, labels = flat_rows(data, "train")
    test, test_labels = flat_rows(data, "test")
    reference = float(np.mean(test_labels[nearest(train, test)] == labels))
    print(f"training digits: accuracy {100 * reference:.1f}%")
    asked = np.tile(np.arange(CLASSES), each)
    cond, method = sgm.Condition(label=jnp.asarray(asked)), sgm.DPMSolverPP(20)
    found, rows = {}, []
    for rescale in RESCALES:
        for weight in WEIGHTS:
            guided = ClassifierFree(model, jnp.asarray(weight), rescale=jnp.asarray(rescale))
            guided = Clipped(guided, -0.5, data.levels - 0.5)
            x = np.asarray(sgm.sample(sde, guided, jr.key(2), len(asked), cond=cond, method=method))
            flat = x.reshape(len(x), -1)
            accuracy = float(np.mean(test_labels[nearest(flat, test)] == asked))
            found[rescale, weight] = accuracy, float(spread(flat, asked) / spread(train, labels))
            print(f"rescale {rescale:g}, weight {weight:g}: accuracy {100 * accuracy:.1f}%, ", end="")
            print(f"spread {found[rescale, weight][1]:.2f}", flush=True)
            if rescale == 0:
                rows.append(x[: 2 * CLASSES, ..., 0].clip(0, data.levels - 1))
    figures.mkdir(parents=True, exist_ok=True)
    draw(found, reference, np.stack(rows)).savefig(figures / "digits_guidance.png", dpi=110)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2500)
    main(Path(__file__).parents[2] / "figs", parser.parse_args().steps)
