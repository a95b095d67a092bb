import itertools
import math

import numpy as np
import pytest
import scipy.stats

from sgm.data import Coins
from sgm.nn.conditioning import Conditioning

pytestmark = pytest.mark.quick


def test_heads_are_as_many_as_stated():
    x, condition = Coins().batch(0, 500, seed=0)
    assert x.shape == (500, 1, 48, 1) == (500, *Coins().shape) and x.dtype == np.uint8 and condition == {}
    assert Coins().levels == 2 and Coins().conditioning == Conditioning() and Coins().statistics() is None
    assert x.max() == 1
    np.testing.assert_array_equal(x.sum(axis=(1, 2, 3)), 36)


def test_all_outcomes_are_equally_likely():
    data = Coins(coins=6, heads=2)
    outcomes, counts = np.unique(data.rows("test", 0, 10_000)[0].reshape(-1, 6), axis=0, return_counts=True)
    expected = [outcome for outcome in itertools.product((0, 1), repeat=6) if sum(outcome) == 2]
    assert outcomes.tolist() == [list(outcome) for outcome in expected]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert data.entropy == pytest.approx(scipy.stats.entropy(np.full(len(expected), 1 / len(expected))))


def test_coins_of_the_default_are_exchangeable():
    x = Coins().rows("test", 0, 10_000)[0].reshape(-1, 48).astype(np.float64)
    scores = (x.mean(axis=0) - 0.75) / math.sqrt(0.75 * 0.25 / len(x))
    assert np.abs(scores).max() < 4
    white = (x - 0.75) / math.sqrt(0.75 * 0.25)
    correlations = (white.T @ white / len(x))[np.triu_indices(48, 1)]
    # products of two coins have a standard deviation of about 1
    assert np.abs(correlations + 1 / 47).max() < 4.5 / math.sqrt(len(x))


@pytest.mark.parametrize(("coins", "heads"), [(48, 36), (5, 1), (20, 10)])
def test_entropy_is_that_of_the_coins_one_after_another(coins, heads):
    # Given how many of the first i coins showed heads, the next one is drawn from those that are left
    entropy = 0.0
    for i in range(coins):
        seen = np.arange(max(0, heads - (coins - i)), min(i, heads) + 1)
        weights = scipy.stats.hypergeom.pmf(seen, coins, heads, i)
        chance = (heads - seen) / (coins - i)
        entropy += weights @ scipy.stats.entropy(np.stack([chance, 1 - chance]))
    assert Coins(coins=coins, heads=heads).entropy == pytest.approx(entropy, rel=1e-9)


def test_bits_a_coin_are_those_stated():
    assert Coins().entropy / math.log(2) / 48 == pytest.approx(0.7504, abs=1e-4)
    assert scipy.stats.entropy([0.75, 0.25], base=2) == pytest.approx(0.8113, abs=1e-4)


def test_batches_are_functions_of_step_and_seed():
    first, again, *others = (Coins().batch(step, 64, seed)[0] for step, seed in ((5, 2), (5, 2), (6, 2), (5, 3)))
    np.testing.assert_array_equal(first, again)
    for other in others:
        assert not (first == other).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("heads", [0, 48])
def test_settings_out_of_range_are_refused(heads):
    with pytest.raises(ValueError, match=f"heads is {heads} of 48 coins: give at least one, and fewer than all"):
        Coins(heads=heads)
