"""The expected coverage of credible regions, by distances to random points."""

import equinox as eqx
import jax.random as jr
import numpy as np

from sgm import plot
from sgm.checks import check_count, check_tuple
from sgm.evaluation.draws import generator, parameters, posterior_draws
from sgm.evaluation.metric import AbstractMetric, Row
from sgm.evaluation.ranks import rank_among, rank_ecdf, rank_envelope, rank_p_value

_BOX_RECORDS = 1024


def _to_credibilities(credibilities: tuple[float, ...]) -> tuple[float, ...]:
    return check_tuple("ExpectedCoverage", "credibilities", credibilities, float, "(0.5, 0.9)")


class ExpectedCoverage(AbstractMetric):
    """The share of records that lie in the model's credible regions, around random points: TARP.

    The region of a record of credibility c is the ball about a random point that holds a share c of the model's draws.
    An exact model covers a share c of the records. So does the prior, whatever was observed, since the points do not
    depend on it: `C2ST` tells the two apart.

    Points are uniform in the box of the split's first 1024 records. Distances are of standardised parameters.

    Arguments:
        draws: Number of draws for each record.
        credibilities: Credibilities at which the coverage is reported.

    Raises:
        TypeError: for a number of draws that is not whole, and credibilities that are no tuple of numbers.
        ValueError: for no draws, and for a credibility that is not between 0 and 1.

    Example:
        >>> report = sgm.evaluate(sde, model, data, [ExpectedCoverage(20, (0.5, 0.9))], key, sampler=sgm.DDIM(10))
        >>> covered = report["coverage_0.9"].value  # 0.9 of an exact model

    Reference: Lemos et al. 2023 (arXiv:2302.03026, algorithm 2); the band by Säilynoja, Bürkner and Vehtari 2022
        (arXiv:2103.10522).
    """

    draws: int = eqx.field(static=True, default=100)
    credibilities: tuple[float, ...] = eqx.field(
        static=True, default=(0.25, 0.5, 0.75, 0.9), converter=_to_credibilities
    )

    def __check_init__(self):
        check_count("ExpectedCoverage", "draws", self.draws)
        for value in self.credibilities:
            if not 0 < value < 1:
                raise ValueError(f"ExpectedCoverage: credibilities have {value}; pass numbers between 0 and 1.")

    def columns(self, context, x, fields, key):
        key_draws, key_levels, key_points, key_ties = jr.split(key, 4)
        shape = context.data.shape

        def standardised(theta):
            return context.data.units.standardised(theta.reshape(*theta.shape[:-1], *shape)).reshape(theta.shape)

        # The box is the same for all batches.
        box = standardised(parameters(context, context.data.rows(context.split, 0, _BOX_RECORDS)[0], context.key))
        low, high = box.min(axis=0), box.max(axis=0)
        points = low + (high - low) * np.asarray(jr.uniform(key_points, (len(x), len(low))))
        theta = standardised(parameters(context, x, key_levels))
        drawn = standardised(posterior_draws(context, len(x), fields, self.draws, key_draws))
        distance = np.sum((theta - points) ** 2, axis=-1)
        distances = np.sum((drawn - points[:, None]) ** 2, axis=-1)
        return {"closer_draws": rank_among(distance, distances, generator(key_ties))}

    def rows(self, context, columns):
        ranks = _known(columns)
        left_out = len(columns["closer_draws"]) - len(ranks)
        said = f"; {left_out} records have draws that are not finite, and are left out" if left_out else ""
        rows = []
        for level in self.credibilities:
            # Where a region ends between two draws, the record is inside with a probability: unbiased for any `draws`.
            inside = np.clip(level * (self.draws + 1) - ranks, 0, 1)
            spread = (level * (1 - level) / max(len(ranks), 1)) ** 0.5
            rows.append(
                Row.mean(f"coverage_{level:g}", inside, note=f"of an exact model {level:g} ± {spread:.4f}{said}")
            )
        if not len(ranks):
            return [*rows, Row("coverage_p", float("nan"), note="no record has draws that are finite")]
        band, curve = rank_envelope(len(ranks), self.draws), rank_ecdf(ranks, self.draws)
        off = curve - band.points
        worst = int(np.argmax(np.abs(off)))
        where = "inside" if band.holds(curve) else "outside"
        note = f"at credibility {band.points[worst]:.2f}, where the simultaneous 95% band is "
        ends = f"{band.lower[worst] - band.points[worst]:+.4f} to {band.upper[worst] - band.points[worst]:+.4f}"
        return [
            *rows,
            Row("coverage_deviation", float(off[worst]), note=f"{note}{ends}"),
            Row("coverage_p", rank_p_value(ranks, self.draws), note=f"of exact coverage; {where} the band"),
        ]

    def figures(self, context, columns):
        ranks = _known(columns)
        if not len(ranks):
            return {}
        band = rank_envelope(len(ranks), self.draws)
        return {"coverage": plot.coverage(band.points, rank_ecdf(ranks, self.draws), band.lower, band.upper)}


def _known(columns):
    return columns["closer_draws"][np.isfinite(columns["closer_draws"])]
