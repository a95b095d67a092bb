"""Rows that processes share, and columns that they send one another."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from sgm.parallel import processes, share

KEYS = jr.split(jr.key(0), 9)


class TestShare:
    def test_results_are_of_numpy_and_keep_their_dtypes(self):
        def function(each):
            return {"low": each["x"].astype(jnp.bfloat16), "double": np.asarray(each["x"], np.float64)}

        x = jnp.linspace(0, 1, 7)
        found = share(function, {"x": x})
        assert {name: (type(values), values.dtype) for name, values in found.items()} == {
            "low": (np.ndarray, jnp.bfloat16),
            "double": (np.ndarray, np.float64),
        }
        np.testing.assert_array_equal(found["double"], np.asarray(x, np.float64))

    @pytest.mark.parametrize(
        ("each", "message"),
        [
            (jr.key(0), r"each has shape \(\); pass arrays of rows, as jax.random.split\(key, n\)"),
            ({"a": np.zeros(4), "b": KEYS}, r"each\['a'\] has 4 rows, but each\['b'\] 9; pass as many rows of each"),
            ((), "each has no arrays; pass arrays of rows"),
            ([1.0], r"each\[0\] is a float; pass an array"),
        ],
        ids=["key", "lengths", "nothing", "number"],
    )
    def test_what_is_not_rows_is_named(self, each, message):
        with pytest.raises((TypeError, ValueError), match=f"share: {message}"):
            share(lambda each: each, each)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda x: {"sum": x.sum()}, r"the result\['sum'\] of the function has shape \(\) for 9 rows; give arrays"),
            (lambda x: x[:2], r"the result of the function has shape \(2,\) for 9 rows"),
        ],
        ids=["scalar", "fewer rows"],
    )
    def test_a_result_without_the_rows_is_named(self, function, message):
        with pytest.raises(ValueError, match=f"share: {message}"):
            share(function, np.arange(9.0))


class TestGather:
    columns = (
        {"x": np.arange(6, dtype=np.float32).reshape(3, 2), "name": np.asarray(["a", "bc"])},
        {
            "low": np.asarray([1.5, 2.5]).astype(jnp.bfloat16),
            "empty": np.zeros((0, 3), np.int64),
            "one": np.asarray(True),
        },
        {},
    )

    @pytest.mark.parametrize("at_once", [2**28, 50])
    def test_columns_of_all_processes_come_back(self, at_once, monkeypatch):
        """In the place of two other processes are their columns."""
        monkeypatch.setattr(processes, "_AT_ONCE", at_once)
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        written = [processes._written(columns) for columns in self.columns]
        sent = []

        def allgather(array):
            if not sent:
                rows = [np.asarray(divmod(len(row), at_once), np.int32) for row in written]
            else:
                start = at_once * (len(sent) - 1)
                parts = [row[start : start + at_once] for row in written]
                rows = [np.pad(part, (0, len(array) - len(part))) for part in parts]
            np.testing.assert_array_equal(array, rows[0])
            sent.append(array)
            return np.stack(rows)

        monkeypatch.setattr(processes.multihost_utils, "process_allgather", allgather)
        found = processes.gather(self.columns[0])
        for columns, expected in zip(found, self.columns, strict=True):
            assert list(columns) == list(expected)
            for name, values in expected.items():
                assert columns[name].dtype == values.dtype and columns[name].flags.writeable
                np.testing.assert_array_equal(columns[name], values)

    def test_objects_are_not_sent(self):
        with pytest.raises(ValueError, match="gather: the column 'x' holds Python objects"):
            processes._written({"x": np.asarray([None])})
