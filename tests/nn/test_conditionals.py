"""One `Transformer` has every conditional of a distribution of five variables."""

import numpy as np
import pytest
from benchmarks.conditionals import Drawn, errors, trained
from classes import forget

forget(Drawn)


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("kind", "steps"), [("gaussian", 14_000), ("mixture", 24_000)])
def test_conditionals_of_one_model_are_the_true_ones(kind, steps):
    data = Drawn(kind)
    for _, means, stds in errors(*trained(data, steps), data.exact):
        np.testing.assert_allclose(means, 0, atol=0.05)
        np.testing.assert_allclose(stds, 1, atol=0.05)
