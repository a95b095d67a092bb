"""Ranks of a value among draws, which are uniform if the value is one more draw, and the test that they are.

A rank among K draws is one of 0 ... K. Of N uniform ranks, the number at most k is Bin(N, (k + 1) / (K + 1)).
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Integer

from sgm.checks import check_count

_POINTS = 100
_SIMULATIONS = 10_000

Ranks = Integer[np.ndarray, " n"] | Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class RankEnvelope:
    """The simultaneous band of the ECDF of uniform ranks, at its points.

    Arguments:
        points: Values of the CDF of uniform ranks, (points,).
        lower: Lower end of the band, (points,).
        upper: Upper end of the band, (points,).

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 21, 200)
        >>> band, ecdf = rank_envelope(200, draws=20), rank_ecdf(ranks, draws=20)
        >>> figure = sgm.plot.ranks(band.points, ecdf[None], band.lower, band.upper)
    """

    points: Float[np.ndarray, " points"]
    lower: Float[np.ndarray, " points"]
    upper: Float[np.ndarray, " points"]

    def holds(self, ecdf: Float[np.ndarray, " points"]) -> bool:
        """Whether an ECDF of `rank_ecdf` lies inside at every point."""
        # Both are whole numbers over n, to be compared as such.
        return bool(np.all((ecdf > self.lower - 1e-9) & (ecdf < self.upper + 1e-9)))


def rank_envelope(n: int, draws: int, level: float = 0.95) -> RankEnvelope:
    """Find the band that holds the whole ECDF of `n` uniform ranks with probability `level`.

    At each point it is an interval of the binomial distribution, all of one pointwise level, which is found from 10,000
    simulated sets of ranks of a fixed seed. The points are all ranks below `draws`, or 100 of more.

    Arguments:
        n: Number of ranks.
        draws: Number of draws among which each value is ranked.
        level: Probability that the whole ECDF lies inside.

    Returns:
        The band.

    Raises:
        TypeError: for numbers of ranks or draws that are not whole.
        ValueError: for a level that is not between 0 and 1, and numbers below 1.

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 21, 200)  # of 200 values, each among 20 draws
        >>> band = rank_envelope(200, draws=20)
        >>> band.holds(rank_ecdf(ranks, draws=20)), band.holds(rank_ecdf(ranks // 2, draws=20))
        (True, False)

    Reference: Säilynoja, Bürkner and Vehtari 2022 (arXiv:2103.10522).
    """
    n, draws = check_count("rank_envelope", "n", n), check_count("rank_envelope", "draws", draws)
    if not 0 < level < 1:
        raise ValueError(f"rank_envelope: level = {level}; pass a level between 0 and 1.")
    from scipy import stats  # here, because it takes half a second to import

    points = (_places(draws) + 1) / (draws + 1)
    pointwise = float(np.quantile(_simulated_tails(n, draws), 1 - level, method="lower"))
    tail = (1 - 1e-9) * pointwise / 2  # A count whose tail is just as small lies inside.
    return RankEnvelope(points, stats.binom.ppf(tail, n, points) / n, 1 - stats.binom.ppf(tail, n, 1 - points) / n)


def rank_ecdf(ranks: Ranks, draws: int) -> Float[np.ndarray, " points"]:
    """Find the ECDF of ranks at the points of `rank_envelope`.

    Arguments:
        ranks: Ranks (n,), from 0 to `draws`.
        draws: Number of draws among which each value is ranked.

    Returns:
        Shares of the ranks, (points,).

    Example:
        >>> rank_ecdf(np.asarray([0, 1, 1, 4]), draws=4)
        array([0.25, 0.75, 0.75, 0.75])
    """
    return np.searchsorted(np.sort(ranks), _places(draws), side="right") / len(ranks)


def rank_p_value(ranks: Ranks, draws: int) -> float:
    """Find the p-value of the hypothesis that ranks are uniform, of the test that `rank_envelope` draws.

    Arguments:
        ranks: Ranks (n,), from 0 to `draws`.
        draws: Number of draws among which each value is ranked.

    Returns:
        The share of 10,000 simulated sets of uniform ranks that leave the binomial distribution as far, at some point.

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 21, 200)
        >>> p_value = rank_p_value(ranks, draws=20)
        >>> round(rank_p_value(ranks // 2, draws=20), 4)  # the least that there is
        0.0001

    Reference: Säilynoja, Bürkner and Vehtari 2022 (arXiv:2103.10522).
    """
    simulated = _simulated_tails(len(ranks), draws)
    counts = np.rint(rank_ecdf(ranks, draws) * len(ranks)).astype(int)
    own = _smallest_tails(counts[None], len(ranks), draws)[0]
    # The set itself is one of those that are uniform under the hypothesis.
    return float((1 + np.sum(simulated <= own * (1 + 1e-9))) / (1 + len(simulated)))


def rank_among(
    value: Float[np.ndarray, "n *axes"], draws: Float[np.ndarray, "n draws *axes"], rng: np.random.Generator
) -> Float[np.ndarray, "n *axes"]:
    """Count the draws below a value.

    Arguments:
        value: Values.
        draws: Draws of each.
        rng: Generator by which a value that is equal to draws finds its place among them.

    Returns:
        Ranks; nan where the value or one of its draws is not finite.
    """
    ties = np.sum(draws == value[:, None], axis=1)
    ranks = np.sum(draws < value[:, None], axis=1) + rng.integers(0, ties + 1)
    known = np.isfinite(value) & np.all(np.isfinite(draws), axis=1)
    return np.where(known, ranks, np.nan).astype(np.float32)


def _places(draws):
    """The ranks at which the ECDF is looked at."""
    return np.unique(np.rint(np.linspace(0, draws - 1, min(draws, _POINTS))).astype(int))


@functools.lru_cache(maxsize=4)
def _simulated_tails(n, draws):
    """The smallest binomial tail of each simulated set of uniform ranks."""
    shares = np.diff((_places(draws) + 1) / (draws + 1), prepend=0, append=1)
    counts = np.random.default_rng(0).multinomial(n, shares, size=_SIMULATIONS)[:, :-1].cumsum(axis=1)
    return _smallest_tails(counts, n, draws)


def _smallest_tails(counts, n, draws):
    """The smallest of the two-sided binomial tails of the counts (sets, points) over all points."""
    from scipy import stats

    smallest = np.full(len(counts), np.inf)
    for place, point in enumerate((_places(draws) + 1) / (draws + 1)):
        # One table a point, since most sets have the same counts.
        below = stats.binom.cdf(np.arange(-1, n + 1), n, point)
        count = counts[:, place]
        smallest = np.minimum(smallest, 2 * np.minimum(below[count + 1], 1 - below[count]))
    return smallest
