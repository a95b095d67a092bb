"""The sliced Wasserstein distance between samples and data."""

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from sgm.checks import check_count
from sgm.evaluation.metric import AbstractMetric, Row, samples_like


class SlicedWasserstein(AbstractMetric):
    """The sliced Wasserstein distance W2 between samples and data, in standard deviations of the data.

    One sample is drawn for each example, given its condition. Beside it stands the distance between as many training
    examples and the data, which is that of a perfect model.

    Arguments:
        directions: Number of random directions.

    Raises:
        TypeError: for a number of directions that is not whole.
        ValueError: for fewer than one direction.

    Example:
        >>> report = sgm.evaluate(sde, model, data, [SlicedWasserstein(directions=64)], key, sampler=sgm.DDIM(10))
        >>> distance, floor = report["sliced_wasserstein"].value, report["sliced_wasserstein_floor"].value

    Reference: Bonneel et al. 2015 (doi:10.1007/s10851-014-0506-3).
    """

    directions: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        check_count("SlicedWasserstein", "directions", self.directions)

    def columns(self, context, x, fields, key):
        key_sample, key_levels = jr.split(key)
        standardise, axes = context.data.units.standardised, self._axes(context)
        parts = {"data": context.real(x, key_levels), "samples": samples_like(context, len(x), fields, key_sample)}
        return {
            f"{name}_projected": standardise(np.asarray(part)).reshape(len(x), -1) @ axes
            for name, part in parts.items()
        }

    def rows(self, context, columns):
        data, n = columns["data_projected"], len(columns["data_projected"])
        train = np.asarray(context.real(context.data.rows("train", 0, n)[0], context.key))
        train = context.data.units.standardised(train).reshape(len(train), -1) @ self._axes(context)
        rows = [
            Row(
                "sliced_wasserstein",
                *projected_distance(columns["samples_projected"], data),
                note="of samples; the error is from the directions",
            ),
            Row(
                "sliced_wasserstein_floor",
                *projected_distance(train, data),
                note="of as many training examples",
                is_score=False,
            ),
        ]
        return rows if len(train) == n else rows[:1]

    def _axes(self, context):
        """Unit vectors, in columns: the same for every batch."""
        axes = np.asarray(jr.normal(context.key, (int(np.prod(context.data.shape)), self.directions)))
        return axes / np.linalg.norm(axes, axis=0)


def sliced_wasserstein(
    x: Float[np.ndarray, "n ..."], y: Float[np.ndarray, "m ..."], key: PRNGKeyArray, directions: int = 128
) -> float:
    """Find the sliced Wasserstein distance W2 between two sets of examples.

    It is the root of the mean, over random directions, of the squared distance W2 between the projections.

    Arguments:
        x: Examples of one set.
        y: Examples of the other, of the same shape.
        key: Key of the directions.
        directions: Number of directions.

    Returns:
        The distance, in the units of the examples.

    Example:
        >>> samples = np.random.default_rng(0).normal(size=(100, 1))
        >>> round(sliced_wasserstein(samples, samples + 3, key), 3)
        3.0

    Reference: Bonneel et al. 2015 (doi:10.1007/s10851-014-0506-3).
    """
    x, y = (part.reshape(len(part), -1) for part in (x, y))
    axes = np.asarray(jr.normal(key, (x.shape[1], directions)))
    axes = axes / np.linalg.norm(axes, axis=0)
    return projected_distance(x @ axes, y @ axes)[0]


def projected_distance(
    x: Float[np.ndarray, "n directions"], y: Float[np.ndarray, "m directions"]
) -> tuple[float, float]:
    """The distance W2 of projections, root mean square over directions, and its standard error from their number."""
    x, y = (np.sort(part.astype(np.float64), axis=0) for part in (x, y))
    # The quantile functions are steps. Where both are constant, so is their difference.
    ends = np.union1d(np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y))
    widths, middles = np.diff(ends, prepend=0), ends - np.diff(ends, prepend=0) / 2
    of_x, of_y = (part[np.minimum((middles * len(part)).astype(int), len(part) - 1)] for part in (x, y))
    squares = widths @ (of_x - of_y) ** 2
    distance = float(np.sqrt(np.mean(squares)))
    error = np.std(squares, ddof=1) / np.sqrt(len(squares)) if len(squares) > 1 else np.nan
    return distance, float(error / (2 * distance)) if distance > 0 else 0.0
