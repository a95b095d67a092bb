"""The classifier two-sample test."""

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from sgm import plot
from sgm.checks import check_count, check_finite
from sgm.evaluation.classifier import mlp_classifier, to_table, z_scored
from sgm.evaluation.draws import conditions, parameters, posterior_draws
from sgm.evaluation.metric import AbstractMetric, Row

_MOST_EPOCHS = 10_000


class C2ST(AbstractMetric):
    """The classifier two-sample test of joint draws (theta, condition) of the model against the records.

    One theta is drawn for each record, given its condition. The accuracy of an exact model is 0.5. It is 1 of a model
    whose draws are always told from the records.

    Arguments:
        folds: Number of folds of the cross-validation.
        seed: Seed of the classifier and of the folds.

    Raises:
        TypeError: for a number of folds that is not whole.
        ValueError: for fewer than two folds.

    Example:
        >>> report = sgm.evaluate(sde, model, data, [C2ST(folds=2)], key, sampler=sgm.DDIM(10))
        >>> accuracy = report["c2st"].value  # 0.5 of an exact model

    Reference: Lopez-Paz and Oquab 2017 (arXiv:1610.06545); Lueckmann et al. 2021 (arXiv:2101.04653).
    """

    folds: int = eqx.field(static=True, default=5)
    seed: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_count("C2ST", "folds", self.folds, 2)

    def columns(self, context, x, fields, key):
        key_draws, key_levels = jr.split(key)
        return {
            "c2st_draws": posterior_draws(context, len(x), fields, 1, key_draws)[:, 0],
            "c2st_records": parameters(context, x, key_levels),
            "c2st_conditions": conditions(context, len(x), fields),
        }

    def rows(self, context, columns):
        draws, records, given = (columns[f"c2st_{name}"] for name in ("draws", "records", "conditions"))
        known = np.all(np.isfinite(draws), axis=1)
        joint = [np.concatenate([theta, given], axis=1)[known] for theta in (draws, records)]
        note = f"accuracy over {self.folds} folds, 0.5 of an exact model"
        if not known.all():
            note += f"; {np.sum(~known)} of {len(known)} draws are not finite, and left out"
        if known.sum() < 2 * self.folds:
            return [Row("c2st", float("nan"), note=note)]
        mean, std = c2st(*joint, seed=self.seed, folds=self.folds, paired=True)
        return [Row("c2st", mean, std / self.folds**0.5, note=note)]

    def figures(self, context, columns):
        return {"c2st": plot.corner({name: columns[f"c2st_{name}"] for name in ("records", "draws")})}


def c2st(
    samples: Float[Array | np.ndarray, "n columns"],
    reference: Float[Array | np.ndarray, "m columns"],
    seed: int = 1,
    folds: int = 5,
    *,
    paired: bool = False,
) -> tuple[float, float]:
    """Find how well a classifier tells two sets of samples apart, on samples that it was not trained on.

    The classifier, its settings and the folds are those of the benchmark sbibm. Both sets are shifted and scaled by the
    mean and standard deviation of the first.

    Arguments:
        samples: Samples of one distribution.
        reference: Samples of the other, about as many: the accuracy of the best guess is the share of the larger set.
        seed: Seed of the classifier and of the folds.
        folds: Number of folds of the cross-validation.
        paired: Whether row i of both sets has the same condition among its columns. Then both go to one fold: a
            classifier that has learnt a condition by heart from one of them would be wrong about the other.

    Returns:
        The mean accuracy over folds, 0.5 for equal distributions and 1 for distributions apart, and its standard
        deviation over folds.

    Raises:
        TypeError: for a number of folds that is not whole.
        ValueError: for fewer than two folds, for sets that do not belong together, of fewer rows than folds, or with
            entries that are not finite.

    Example:
        >>> draws, others = np.random.default_rng(0).normal(size=(2, 40, 1))
        >>> accuracy, std = c2st(draws, others + 10, folds=2)
        >>> accuracy
        1.0

    Reference: Lopez-Paz and Oquab 2017 (arXiv:1610.06545); Lueckmann et al. 2021 (arXiv:2101.04653).
    """
    check_count("c2st", "folds", folds, 2)
    samples, reference = to_table("c2st", "samples", samples), to_table("c2st", "reference", reference)
    sizes = len(samples), len(reference)
    if samples.shape[1] != reference.shape[1] or (paired and sizes[0] != sizes[1]):
        raise ValueError(
            f"c2st: samples have shape {samples.shape} and reference {reference.shape}; pass sets of the same columns"
            f"{', and of the same rows, since they are paired' if paired else ''}."
        )
    if min(sizes) < folds:
        raise ValueError(
            f"c2st: the sets have {sizes[0]} and {sizes[1]} rows; pass as many as folds = {folds}, or more."
        )
    check_finite("c2st", samples, "samples")
    check_finite("c2st", reference, "reference")
    classifier = mlp_classifier(samples.shape[1], seed, max_iter=_MOST_EPOCHS)
    from sklearn.model_selection import KFold, cross_val_score

    x = np.concatenate([z_scored(samples, of=samples), z_scored(reference, of=samples)])
    label = np.repeat([0, 1], sizes)
    splitter = KFold(folds, shuffle=True, random_state=seed)
    if paired:
        splits = [[np.concatenate([i, i + sizes[0]]) for i in split] for split in splitter.split(samples)]
    else:
        splits = list(splitter.split(x))
    scores = cross_val_score(classifier, x, label, cv=splits, scoring="accuracy")
    return float(np.mean(scores)), float(np.std(scores, ddof=1))
