"""What the report of log-likelihoods says of its numbers, and what it holds them against."""

import jax.random as jr
import numpy as np
import pytest

import sgm
from sgm.data import Arrays, Digits
from sgm.evaluation import LogLikelihood
from sgm.evaluation.log_likelihood import gaussian_bits_per_dim
from sgm.evaluation.metric import Context


@pytest.mark.parametrize(
    ("metric", "note"),
    [
        (LogLikelihood(sgm.Hutchinson()), "bound on log P(levels)"),
        (LogLikelihood(sgm.Exact(), samples=4), "bound on log P(levels)"),
        (LogLikelihood(sgm.Hutchinson(), samples=4), "no bound"),
    ],
    ids=["one draw", "exact", "random probes"],
)
def test_several_draws_with_random_probes_are_no_bound(metric, note):
    data = Arrays(np.arange(40, dtype=np.uint8).reshape(20, 2) % 4, grey_levels=4, held_out=0.5)
    model = sgm.ScoreModel(sgm.nn.MLP((2,), 8, 1, key=jr.key(0)), data=data)
    dequantisation = sgm.likelihood.UniformDequantisation()
    context = Context(sgm.VP(), model, data, "test", None, dequantisation, jr.key(1), None)
    columns = {name: np.ones(10) for name in ("log_prob", "nfe", "bits_per_dim")} | {"converged": np.ones(10, bool)}
    row = metric.rows(context, columns)[0]
    assert row.name == "log_prob" and row.note.startswith(note)


def test_the_gaussian_of_the_digits():
    reference = gaussian_bits_per_dim(Digits(), "test", 297, jr.key(0))
    assert reference is not None and reference.value == pytest.approx(2.95, abs=0.03)


def test_the_gaussian_needs_more_images_than_dimensions(monkeypatch):
    monkeypatch.setattr("sgm.data.Digits.size", lambda self, split: 64)
    assert gaussian_bits_per_dim(Digits(), "test", 10, jr.key(0)) is None
