import math

import numpy as np
import pytest
import scipy.stats

from sgm.data import Heartbeat

pytestmark = pytest.mark.quick


def test_beats_are_regular_and_their_phases_equally_likely():
    data = Heartbeat()
    x, condition = data.rows("test", 0, 10_000)
    assert x.shape == (10_000, 1, 20, 1) == (10_000, *data.shape) and x.dtype == np.uint8 and condition == {}
    first = np.argmax(x.reshape(-1, 20), axis=1)
    assert first.max() < 5
    np.testing.assert_array_equal(x.reshape(-1, 20), np.arange(20) % 5 == first[:, None])
    assert scipy.stats.chisquare(np.bincount(first)).pvalue > 1e-3


def test_the_entropy_is_that_of_the_paper():
    assert Heartbeat().entropy / math.log(2) == pytest.approx(2.322, abs=5e-4)
    x = Heartbeat(7, 3).examples
    assert x.shape == (3, 1, 7, 1)
    np.testing.assert_allclose(Heartbeat(7, 3).exact_log_prob(x, {}), -math.log(3))
    assert Heartbeat(7, 3).exact_log_prob(1 - x, {}).max() == -np.inf


@pytest.mark.parametrize("period", [1, 21])
def test_settings_out_of_range_are_refused(period):
    with pytest.raises(ValueError, match=f"period is {period} of 20 bits: give at least 2, and at most all"):
        Heartbeat(period=period)
