"""Simulation-based calibration."""

import equinox as eqx
import jax.random as jr
import numpy as np

from sgm import plot
from sgm.checks import check_count
from sgm.evaluation.draws import generator, parameters, posterior_draws
from sgm.evaluation.metric import AbstractMetric, Row
from sgm.evaluation.ranks import rank_among, rank_ecdf, rank_envelope, rank_p_value

_LEVEL = 0.95


class Calibration(AbstractMetric):
    """Simulation-based calibration: the ranks of each record's parameters among draws of the model are uniform.

    For each parameter there is the p-value of the test that they are, and whether their ECDF lies inside its
    simultaneous 95% band. Of an exact model each parameter leaves the band with probability 0.05.

    Arguments:
        draws: Number of draws for each record.

    Raises:
        TypeError: for a number of draws that is not whole.
        ValueError: for no draws; when evaluated, for examples that are no vectors.

    Example:
        >>> report = sgm.evaluate(sde, model, data, [Calibration(draws=20)], key, sampler=sgm.DDIM(10))
        >>> outside = report["calibration_outside"].value  # number of parameters outside the band
        >>> figure = report.figures()["calibration"]

    Reference: Talts et al. 2018 (arXiv:1804.06788, algorithm 1); the band by Säilynoja, Bürkner and Vehtari 2022
        (arXiv:2103.10522).
    """

    draws: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        check_count("Calibration", "draws", self.draws)

    def check(self, context):
        if len(context.data.shape) != 1:
            raise ValueError(
                f"Calibration: examples have the shape {context.data.shape}; pass data whose examples are vectors of "
                "parameters, as sgm.data.Arrays(theta, params=x)."
            )

    def columns(self, context, x, fields, key):
        key_draws, key_levels, key_ties = jr.split(key, 3)
        drawn = posterior_draws(context, len(x), fields, self.draws, key_draws)
        return {"calibration_rank": rank_among(parameters(context, x, key_levels), drawn, generator(key_ties))}

    def rows(self, context, columns):
        ranks, rows, outside = columns["calibration_rank"], [], 0
        for place, known in enumerate(_known(ranks)):
            name, note = f"calibration_p_{place}", f"parameter {place}"
            if len(known) < len(ranks):
                note += f"; {len(ranks) - len(known)} of {len(ranks)} have draws that are not finite, and are left out"
            if not len(known):
                rows.append(Row(name, float("nan"), note=note))
                continue
            band, ecdf = rank_envelope(len(known), self.draws, _LEVEL), rank_ecdf(known, self.draws)
            off = ecdf - band.points
            worst, inside = int(np.argmax(np.abs(off))), band.holds(ecdf)
            outside += not inside
            where = f"the ECDF is off by {off[worst]:+.3f} at {band.points[worst]:.2f}"
            note += f"; {where}, {'inside' if inside else 'outside'} its simultaneous 95% band"
            rows.append(Row(name, rank_p_value(known, self.draws), note=note))
        expected = (1 - _LEVEL) * ranks.shape[1]
        note = f"of {ranks.shape[1]} parameters, outside the band; {expected:.2g} are expected of an exact model"
        return [Row("calibration_outside", outside, note=note), *rows]

    def figures(self, context, columns):
        ranks = columns["calibration_rank"][np.all(np.isfinite(columns["calibration_rank"]), axis=1)]
        if not len(ranks):
            return {}
        band = rank_envelope(len(ranks), self.draws, _LEVEL)
        curves = np.stack([rank_ecdf(column, self.draws) for column in ranks.T])
        return {"calibration": plot.ranks(band.points, curves, band.lower, band.upper)}


def _known(ranks):
    """The ranks of each parameter that are known."""
    return [column[np.isfinite(column)] for column in ranks.T]
