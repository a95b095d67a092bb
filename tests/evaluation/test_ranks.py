"""Ranks among draws, their band and their p-value."""

import numpy as np
import pytest
from scipy import stats

from sgm.evaluation import rank_ecdf, rank_envelope, rank_p_value
from sgm.evaluation.ranks import rank_among


class TestRanks:
    @pytest.mark.parametrize(("n", "draws"), [(50, 19), (300, 100), (200, 350)])
    def test_the_envelope_holds_uniform_ranks_as_often_as_it_says(self, n, draws):
        rng, sets = np.random.default_rng(7), 2000
        band = rank_envelope(n, draws, 0.9)
        held = [band.holds(rank_ecdf(rng.integers(0, draws + 1, n), draws)) for _ in range(sets)]
        assert np.mean(held) == pytest.approx(0.9, abs=4 * (0.09 / sets) ** 0.5 + 4 * (0.09 / 10_000) ** 0.5)

    def test_p_values_of_uniform_ranks_are_uniform(self):
        rng = np.random.default_rng(3)
        p_values = [rank_p_value(rng.integers(0, 51, 100), 50) for _ in range(500)]
        assert stats.kstest(p_values, "uniform").pvalue > 1e-3

    def test_the_band_is_that_of_one_binomial_where_there_is_one_point(self):
        """Of one draw the rank is 0 or 1, and the number of zeros is Bin(n, 1/2)."""
        band = rank_envelope(100, 1, 0.95)
        np.testing.assert_array_equal(band.points, [0.5])
        np.testing.assert_allclose([band.lower[0], band.upper[0]], stats.binom.ppf([0.025, 0.975], 100, 0.5) / 100)
        assert rank_p_value(np.repeat([0, 1], [40, 60]), 1) == pytest.approx(2 * stats.binom.cdf(40, 100, 0.5), rel=0.1)

    def test_wrong_ranks_leave_the_band(self):
        rng = np.random.default_rng(0)
        ranks = rng.binomial(100, rng.beta(2, 2, 300))
        assert not rank_envelope(300, 100).holds(rank_ecdf(ranks, 100)) and rank_p_value(ranks, 100) < 1e-3

    def test_ties_are_broken_evenly_and_what_is_not_known_is_nan(self):
        rng = np.random.default_rng(0)
        ranks = rank_among(np.zeros(4000), np.zeros((4000, 3)), rng)
        np.testing.assert_allclose(np.bincount(ranks.astype(int)), 1000, atol=5 * 750**0.5)
        draws = np.asarray([[0.0, 2.0], [0.0, np.nan]])
        np.testing.assert_array_equal(rank_among(np.asarray([1.0, 1.0]), draws, rng), [1, np.nan])

    @pytest.mark.parametrize(
        ("arguments", "message"), [((10, 5, 1.0), "level = 1.0"), ((0, 5), "n = 0"), ((10, 0), "draws = 0")]
    )
    def test_wrong_envelopes_are_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            rank_envelope(*arguments)
