import jax.random as jr
import numpy as np
import pytest
from truth import gaussian

import sgm
import sgm.evaluation.evaluate
from sgm.evaluation.evaluate import evaluate, read_columns

DATA = sgm.data.Moons()
OPTIONS = {"split": "test", "batch_size": 4, "key": jr.key(0), "trace": sgm.Hutchinson(2)}


def run(**options):
    return evaluate(sgm.VP(), gaussian(2), DATA, **{**OPTIONS, "n": 10, **options})


def test_a_ragged_last_batch_has_each_example_once(tmp_path):
    result = run(folder=tmp_path)
    assert result.log_prob.shape == result.stderr.shape == result.nfe.shape == (10,)
    x, _ = DATA.rows("test", 0, 10)
    exact = run(trace=sgm.Exact()).log_prob
    np.testing.assert_allclose(exact, sgm.log_prob(sgm.VP(), gaussian(2), x, trace=sgm.Exact()), rtol=1e-4)
    assert len({path.name for path in tmp_path.glob("*.parquet")}) == 3


def test_what_misses_the_accuracy_is_told():
    result = run(trace=sgm.Exact(), accuracy=1e-9)
    assert np.all(np.isfinite(result.log_prob)) and not result.converged.all()


def test_an_interrupted_evaluation_goes_on(tmp_path, monkeypatch):
    whole = run()
    calls = []
    original = sgm.evaluation.evaluate.log_prob

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(sgm.evaluation.evaluate, "log_prob", failing)
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    resumed = run(folder=tmp_path)
    assert len(calls) == 4  # two batches were left
    for first, second in zip(whole[:4], resumed[:4], strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path, monkeypatch):
    run(folder=tmp_path)
    for path in tmp_path.glob("*.parquet"):
        assert set(read_columns(path)) == {"log_prob", "stderr", "nfe", "converged"}
        path.unlink()

    def full_disk(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(sgm.evaluation.evaluate.pyarrow.parquet, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(folder=tmp_path)
    assert not list(tmp_path.glob("*.parquet"))
