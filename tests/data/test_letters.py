import itertools

import numpy as np
import pytest
import scipy.stats

from sgm.data import Letters

pytestmark = pytest.mark.quick


def test_the_entropy_is_that_of_all_strings():
    data = Letters(length=4, letters=3, concentration=0.5)
    strings = np.asarray(list(itertools.product(range(3), repeat=4)))[..., None]
    probabilities = np.exp(data.exact_log_prob(strings, {}))
    assert np.sum(probabilities) == pytest.approx(1, abs=1e-9)
    assert scipy.stats.entropy(probabilities) == pytest.approx(data.entropy, rel=1e-6)


def test_strings_have_their_frequencies():
    data = Letters(length=3, letters=3, concentration=1.0, seed=1)
    x, condition = data.rows("test", 0, 10_000)
    assert x.shape == (10_000, 3, 1) and x.dtype == np.uint8 and condition == {} and data.levels == 3
    strings = np.asarray(list(itertools.product(range(3), repeat=3)))
    counts = np.asarray([np.count_nonzero(np.all(x[..., 0] == string, axis=1)) for string in strings])
    expected = 10_000 * np.exp(data.exact_log_prob(strings[..., None], {}))
    assert scipy.stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3


def test_the_first_letter_is_as_likely_as_all_others():
    data = Letters()
    np.testing.assert_allclose(data.initial @ data.transitions, data.initial, atol=1e-12)
    assert np.sum(data.initial) == pytest.approx(1) and np.min(data.initial) > 0
    np.testing.assert_allclose(np.sum(data.transitions, axis=1), 1)


def test_strings_are_read_as_text():
    assert Letters(length=3).text(np.asarray([[[0], [1], [26]], [[2], [2], [2]]])) == ["et_", "aaa"]


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="letters is 28: give at least 2, and at most 27"):
        Letters(letters=28)
    with pytest.raises(ValueError, match=r"length is 0 and concentration 0.1: give one letter or more"):
        Letters(length=0)
