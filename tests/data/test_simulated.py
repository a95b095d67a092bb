import dataclasses

import numpy as np
import pytest

from sgm.data import AbstractSimulated, GaussianField, GaussianFieldMap, Moons

pytestmark = pytest.mark.quick

SIMULATED = [Moons(), GaussianField(resolution=8), GaussianFieldMap(resolution=8)]


def name(data):
    return type(data).__name__


def arrays(record):
    x, fields = record
    return {"x": x, **fields}


@pytest.mark.parametrize("data", SIMULATED, ids=name)
def test_records_are_what_conditioning_says(data):
    built_for = dict(data.conditioning.parts)
    shapes = {"params": (built_for.pop("params"),)} if "params" in built_for else {}
    shapes |= {"image": built_for.pop("image")} if "image" in built_for else {}
    assert built_for == {}
    for record in (data.batch(3, 7, seed=0), data.rows("test", 4, 11)):
        found = arrays(record)
        assert {key: value.shape for key, value in found.items()} == {
            key: (7, *shape) for key, shape in {"x": data.shape, **shapes}.items()
        }
        assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize("data", SIMULATED, ids=name)
def test_batches_are_functions_of_step_and_seed(data):
    first, again, *others = (
        arrays(data.batch(step, 16, seed)) for step, seed in ((5, 2), (5, 2), (6, 2), (5, 3), (0, 0))
    )
    for key, values in first.items():
        np.testing.assert_array_equal(values, again[key])
        for other in others:
            assert not (values == other[key]).reshape(16, -1).all(axis=1).any()


@pytest.mark.parametrize("data", SIMULATED, ids=name)
def test_splits_are_fixed_draws_of_their_own(data):
    assert data.size("train") == data.size("test") == 10_000
    train, test = (arrays(data.rows(split, 0, 20_000)) for split in ("train", "test"))
    part = arrays(data.rows("test", 9_990, 10_005))
    for key, values in test.items():
        assert len(values) == 10_000
        np.testing.assert_array_equal(part[key], values[9_990:])
        assert not (values == train[key]).reshape(10_000, -1).all(axis=1).any()


def test_the_draw_of_a_split_is_made_once_and_can_not_be_changed():
    x, fields = GaussianField(resolution=8).rows("test", 0, 10)
    again, fields_again = GaussianField(resolution=8).rows("test", 0, 10)
    assert np.shares_memory(x, again) and np.shares_memory(fields["params"], fields_again["params"])
    assert not np.array_equal(x, GaussianField(resolution=8, pivot=5.0).rows("test", 0, 10)[0])
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 0.0


@pytest.mark.parametrize("data", SIMULATED, ids=name)
def test_wrong_arguments_are_refused(data):
    with pytest.raises(ValueError, match="batch_size is 0: a batch needs at least 1 example"):
        data.batch(0, 0, seed=0)
    for call in (lambda: data.rows("valid", 0, 1), lambda: data.size("valid")):
        with pytest.raises(ValueError, match="unknown split 'valid'"):
            call()


def test_a_simulation_may_ask_for_the_rows_of_another_data_set():
    @dataclasses.dataclass(frozen=True)
    class Scaled(AbstractSimulated):
        field: GaussianField
        shape = (3, 3, 1)

        def simulate(self, key, n):
            return self.field.simulate(key, n)[0] / self.field.rows("train", 0, 1000)[0].std(), {}

    scaled = Scaled(GaussianField(resolution=3))  # One whose rows no other test has asked for.
    Scaled.__name__ = "_Scaled"  # No other test's flags may name it.
    assert abs(scaled.batch(0, 1000, seed=0)[0].std() - 1) < 0.1
