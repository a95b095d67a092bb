"""The classifier two-sample test of two sets of samples."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sgm.evaluation import c2st


class TestC2ST:
    @pytest.mark.slow_except("1.0")
    @pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
    def test_the_accuracy_of_two_gaussians_is_that_of_the_best_classifier(self, distance):
        """Phi(distance / 2), within the error of 2000 samples and of a classifier that is trained on 1600."""
        x, y = np.random.default_rng(0).normal(size=(2, 1000, 2))
        mean, std = c2st(x, y + distance / 2**0.5)
        assert mean == pytest.approx(stats.norm.cdf(distance / 2), abs=4 * (0.25 / 2000) ** 0.5)
        assert 0 < std < 0.06

    def test_the_classifier_and_the_folds_are_those_of_the_benchmark(self):
        """The same number as by the benchmark's recipe, written out."""
        from sklearn.model_selection import KFold, cross_val_score
        from sklearn.neural_network import MLPClassifier

        x, y = np.random.default_rng(1).normal(size=(2, 40, 3))
        y = 3 + 2 * y
        z = (np.concatenate([x, y]) - x.mean(0)) / x.std(0, ddof=1)
        classifier = MLPClassifier((30, 30), activation="relu", solver="adam", max_iter=10_000, random_state=2)
        folds = KFold(3, shuffle=True, random_state=2)
        scores = cross_val_score(classifier, z, np.repeat([0, 1], 40), cv=folds, scoring="accuracy")
        assert c2st(x, y, seed=2, folds=3) == pytest.approx((scores.mean(), scores.std(ddof=1)))

    @pytest.mark.slow
    def test_a_shared_condition_does_not_mislead_the_classifier(self):
        """Of equal distributions: a pair is told apart, not, or the wrong way round, which has a deviation of 1 / 2."""
        theta, draws = np.random.default_rng(0).normal(size=(2, 150, 1))
        given = np.random.default_rng(1).normal(size=(150, 5))
        joint = [np.concatenate([part, given], axis=1) for part in (theta, draws)]
        assert c2st(*joint, paired=True)[0] == pytest.approx(0.5, abs=3 * 0.5 / 150**0.5)
        assert c2st(*joint)[0] < 0.5 - 3 * (0.25 / 300) ** 0.5

    def test_constant_columns_are_no_obstacle(self):
        x, y = np.random.default_rng(0).normal(size=(2, 100, 2))
        x[:, 1] = y[:, 1] = 3.0
        assert c2st(x, y)[0] == pytest.approx(0.5, abs=4 * (0.25 / 200) ** 0.5)
        assert c2st(x, y + np.asarray([0.0, 2.0]))[0] == 1

    @pytest.mark.parametrize(
        ("shapes", "options", "message"),
        [
            (((9, 2), (9, 3)), {}, r"samples have shape \(9, 2\) and reference \(9, 3\)"),
            (((9, 2), (8, 2)), {"paired": True}, "of the same rows, since they are paired"),
            (((9, 2), (4, 2)), {}, "the sets have 9 and 4 rows; pass as many as folds = 5"),
            (((9, 2), (9, 2)), {"folds": 1}, "folds = 1"),
            (
                ((9,), (9, 2)),
                {},
                r"samples has shape \(9,\); pass rows and columns, of .* np.reshape\(samples, \(-1, 1",
            ),
            (((9, 2), (9, 2, 1)), {}, r"reference has shape \(9, 2, 1\)"),
        ],
    )
    @pytest.mark.usefixtures("types_unchecked")
    def test_wrong_sets_are_named(self, shapes, options, message):
        with pytest.raises(ValueError, match=message):
            c2st(*(np.zeros(shape) for shape in shapes), **options)

    @pytest.mark.usefixtures("types_unchecked")
    def test_arrays_of_jax_and_lists_are_taken(self):
        x, y = np.random.default_rng(0).normal(size=(2, 40, 2)).astype(np.float32) + np.float32([[[0]], [[9]]])
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of float64 that JAX does not have
            found = [c2st(to(x), to(y), folds=2) for to in (np.asarray, jnp.asarray, np.ndarray.tolist)]
        assert found[0][0] > 0.9 and found == [found[0]] * 3

    def test_entries_that_are_not_finite_are_named(self):
        with pytest.raises(ValueError, match=r"c2st: 1 of the 18 entries of reference are not finite"):
            c2st(np.zeros((9, 2)), np.where(np.arange(18).reshape(9, 2) == 3, np.nan, 0.0))
