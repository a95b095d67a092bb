"""How good every sampler's MNIST digits are by its evaluations: Frechet distances of a small classifier's features.

    python tests/benchmarks/samplers_mnist.py RUN --folder FOLDER --figure figs/samplers_mnist.png

RUN is a folder of `sgm --config mnist`. A convolutional classifier is trained on the training images for two epochs;
its 64 last features of samples and of the 10,000 test images are compared by the Frechet distance of the Gaussians that
fit them. Samples are drawn given the labels of the first test images, without guidance, from the same noise by every
sampler. Beside the distance stands how often the classifier finds the label that was asked for. As many training
images of the same labels tell what a perfect model has: the band of the figure, by their standard deviation.

FOLDER keeps the classifier and the samples, so that a command that was ended goes on. The whole takes hours of a core.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from networks import table
from scipy.linalg import sqrtm

import sgm
from sgm import plot
from sgm.plot.base import empty_figure
from sgm.runs import read_experiment

# With the evaluations of a step; one more finds the denoised end.
METHODS = {
    "EulerMaruyama": (sgm.EulerMaruyama, 1),
    "Ancestral": (sgm.Ancestral, 1),
    "PredictorCorrector": (sgm.PredictorCorrector, 2),
    "SDEDPMSolverPP": (sgm.SDEDPMSolverPP, 1),
    "DDIM": (sgm.DDIM, 1),
    "DPMSolverPP": (sgm.DPMSolverPP, 1),
    "SingleDPMSolverPP": (sgm.SingleDPMSolverPP, 2),
    "EDMHeun": (sgm.EDMHeun, 2),
}
COUNTS = (5, 10, 20, 50, 100, 200, 500, 1000)


class Classifier(eqx.Module):
    """Two strided convolutions and a hidden layer, whose outputs are the features."""

    convolutions: list[eqx.nn.Conv2d]
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key):
        keys = jr.split(key, 4)
        widths = (1, 32, 64)
        self.convolutions = [eqx.nn.Conv2d(*widths[i : i + 2], 5, 2, 2, key=keys[i]) for i in range(2)]
        self.hidden = eqx.nn.Linear(7 * 7 * 64, 64, key=keys[2])
        self.out = eqx.nn.Linear(64, 10, key=keys[3])

    def features(self, x):
        x = jnp.moveaxis(x, -1, 0) / 255 - 0.5
        for convolution in self.convolutions:
            x = jax.nn.gelu(convolution(x))
        return jax.nn.gelu(self.hidden(x.ravel()))


def trained_classifier(x, labels, epochs=2, batch=128):
    classifier = Classifier(jr.key(0))
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-3, epochs * len(x) // batch))

    @eqx.filter_jit
    def step(classifier, state, x, labels):
        def loss(classifier):
            logits = jax.vmap(lambda x: classifier.out(classifier.features(x)))(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradient = eqx.filter_grad(loss)(classifier)
        updates, state = optimiser.update(gradient, state)
        return eqx.apply_updates(classifier, updates), state

    state = optimiser.init(eqx.filter(classifier, eqx.is_array))
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(x))[: len(x) // batch * batch], len(x) // batch):
            classifier, state = step(classifier, state, x[rows], labels[rows])
    return classifier


def frechet(x, y):
    """The Frechet distance of the Gaussians with the means and covariances of two sets of features."""
    x, y = np.float64(x), np.float64(y)
    of_x, of_y = np.cov(x.T), np.cov(y.T)
    root = sqrtm(of_x @ of_y).real
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(of_x + of_y - 2 * root))


def draw(rows, path):
    """Distances against evaluations, of rows as the table has them."""
    figure = empty_figure((7, 4))
    axes = figure.subplots()
    for name in dict.fromkeys(name for name, *_ in rows):
        of_name = [(count, distances) for other, count, distances, _ in rows if other == name]
        if of_name[0][0] is None:
            mean, std = np.mean(of_name[0][1]), np.std(of_name[0][1], ddof=1)
            axes.axhspan(mean - std, mean + std, color="0.85", label=name)
        else:
            axes.plot(*zip(*of_name, strict=True), marker="o", markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="distance to the test images")
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.set_yticks((20, 50, 100, 200, 500, 1000), ["20", "50", "100", "200", "500", "1000"])
    axes.minorticks_off()
    most = max(count or 0 for _, count, *_ in rows)
    axes.set_xlim(4.5, 1.1 * most)
    axes.legend(fontsize="small")
    plot.save(figure, path)


def main(run, folder, figure, n, methods, counts):
    sde, model = sgm.load(run)
    data = read_experiment(Path(run)).data
    folder.mkdir(parents=True, exist_ok=True)

    def split(name):
        x, fields = data.rows(name, 0, data.size(name))
        return x.astype(np.float32), fields["label"].astype(np.int32)

    (train, train_labels), (test, labels) = split("train"), split("test")
    path = folder / "classifier.eqx"
    if path.exists():
        classifier = eqx.tree_deserialise_leaves(path, Classifier(jr.key(0)))
    else:
        classifier = trained_classifier(train, train_labels)
        eqx.tree_serialise_leaves(path, classifier)

    @eqx.filter_jit
    def group(x):
        features = jax.vmap(classifier.features)(x)
        return features, jax.vmap(classifier.out)(features).argmax(-1)

    def seen(x):
        """Features and the classes that are found."""
        parts = [group(x[i : i + 500]) for i in range(0, len(x), 500)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    of_test, found = seen(test)
    print(f"the classifier is right for {100 * np.mean(found == labels):.2f}% of the test images\n", flush=True)
    # Training images by the classes of the samples, so that their mixture is the same.
    rounds = 10
    order = [iter(np.flatnonzero(train_labels == label)) for label in range(10)]
    picked = np.asarray([[next(order[label]) for label in labels[:n]] for _ in range(rounds)])
    of_train = [seen(train[rows]) for rows in picked]
    distances = [frechet(features, of_test) for features, _ in of_train]
    right = np.mean([np.mean(classes == labels[:n]) for _, classes in of_train])
    rows = [("training images", None, distances, right)]
    for name in methods:
        sampler, of_step = METHODS[name]
        for steps in sorted({(count - 1) // of_step for count in counts}):
            path = folder / f"{name}_{steps}_{n}.npy"
            if not path.exists():
                cond = sgm.Condition(label=labels[:n])
                x = sgm.sample(sde, model, jr.key(2), n, cond=cond, method=sampler(steps), batch_size=100)
                np.save(path, np.asarray(x))
                print(f"drawn: {path.name}", flush=True)
            features, classes = seen(np.load(path))
            rows.append((name, steps * of_step + 1, [frechet(features, of_test)], np.mean(classes == labels[:n])))
    lines = (
        (name, str(count or ""), f"{np.mean(distances):.2f}", f"{100 * right:.1f}")
        for name, count, distances, right in rows
    )
    table(("samples", "evaluations", "distance", "labels found, %"), *lines)
    print(f"standard deviation of the distance over {rounds} sets of training images: {np.std(rows[0][2], ddof=1):.2f}")
    if figure is not None:
        draw(rows, figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--figure", type=Path, help="PNG of the distances")
    parser.add_argument("--n", type=int, default=500, help="samples (500)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    given = parser.parse_args()
    main(given.run, given.folder, given.figure, given.n, given.methods, given.counts)
