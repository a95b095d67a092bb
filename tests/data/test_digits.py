import numpy as np
import pytest
from sklearn.datasets import load_digits

from sgm.data import Digits


def test_splits_are_the_first_1500_and_the_other_297():
    data, reference = Digits(label=True), load_digits()
    assert (data.size("train"), data.size("test")) == (1500, 297)
    train, train_condition = data.rows("train", 0, 2000)
    test, test_condition = data.rows("test", 0, 2000)
    np.testing.assert_array_equal(np.concatenate([train, test])[..., 0], reference.images)
    labels = np.concatenate([train_condition["label"], test_condition["label"]])
    np.testing.assert_array_equal(labels, reference.target)
    assert labels.dtype == np.int32


def test_levels_are_0_to_16():
    data = Digits()
    x, condition = data.rows("train", 0, 1500)
    assert x.shape[1:] == data.shape == (8, 8, 1)
    assert x.dtype == np.uint8
    assert (x.min(), x.max(), data.levels) == (0, 16, 17)
    assert condition == {}


def test_training_visits_every_digit_once_an_epoch_with_its_label():
    data = Digits(label=True)
    x, condition = data.batch(0, 1500, seed=0)
    stored, stored_condition = data.rows("train", 0, 1500)
    key = lambda images, labels: sorted(zip(map(bytes, images), labels.tolist(), strict=True))  # noqa: E731
    assert key(x, condition["label"]) == key(stored, stored_condition["label"])
    assert not np.array_equal(x, stored)


def test_conditions_only_if_wanted():
    assert Digits().conditions == {} and Digits().statistics() is None
    assert Digits(label=True).conditions == {"classes": 10}


def test_loaded_data_are_no_part_of_equality():
    loaded = Digits()
    loaded.size("test")
    assert loaded == Digits() != Digits(label=True)
    assert hash(loaded) == hash(Digits())


@pytest.mark.parametrize("call", [lambda d: d.size("valid"), lambda d: d.rows("valid", 0, 1)])
def test_unknown_split_is_refused(call):
    with pytest.raises(ValueError, match='unknown split \'valid\': a data set has the splits "train" and "test"'):
        call(Digits())
