"""Entries that are missing, and conditions of signals and volumes."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas
import pytest

import sgm
from sgm.data import Arrays, Files, Table

X = np.random.default_rng(0).normal([1.0, -2.0, 30.0], [1.0, 0.5, 4.0], (400, 3)).astype(np.float32)
HOLES = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)


def test_units_are_those_of_the_entries_that_are_there(tmp_path):
    np.savez(tmp_path / "table.npz", x=HOLES)
    sets = (
        Arrays(HOLES, missing=True, held_out=0.0),
        Files(str(tmp_path / "table.npz"), missing=True, held_out=0.0),
        Table(pandas.DataFrame(HOLES, columns=list("abc")), missing=True, held_out=0.0),
    )
    for data in sets:
        np.testing.assert_allclose(data.units.mean.value, np.nanmean(HOLES, axis=0), rtol=1e-5)
        np.testing.assert_allclose(data.units.std.value, np.nanstd(HOLES, axis=0), rtol=1e-5)
        np.testing.assert_array_equal(data.rows("train", 0, 400)[0], HOLES.astype(np.float32))
    in_parts = sgm.Units.fit(iter([HOLES[:7], HOLES[7:]]), missing=True)
    np.testing.assert_allclose(in_parts.mean.value, np.nanmean(HOLES, axis=0), rtol=1e-5)
    np.testing.assert_allclose(in_parts.std.value, np.nanstd(HOLES, axis=0), rtol=1e-5)


@pytest.mark.quick
def test_what_is_missing_must_be_said():
    with pytest.raises(ValueError, match=r"Arrays: column . of x has entries that are missing or not finite"):
        Arrays(HOLES)
    with pytest.raises(ValueError, match="column or channel 0 has entries that are not finite"):
        sgm.Units.fit(np.asarray([[np.nan, 1.0], [2.0, 3.0]]))
    with pytest.raises(ValueError, match="column 1 of x has entries that are infinite"):
        Arrays(np.where(np.arange(3) == 1, np.inf, HOLES), missing=True)
    with pytest.raises(ValueError, match="column 2 of x has no value at all"):
        Arrays(np.where(np.arange(3) == 2, np.nan, HOLES), missing=True)
    with pytest.raises(ValueError, match="column 1 of x has only the whole values 0, 1, as categories have"):
        Arrays(np.where(np.arange(3) == 1, np.arange(400)[:, None] % 2, HOLES), missing=True)


def test_a_network_without_a_place_for_them_is_refused():
    data = Arrays(HOLES, missing=True)
    model = sgm.ScoreModel(sgm.nn.MLP((3,), 8, 1, key=jr.key(0)), data=data)
    with pytest.raises(ValueError, match=r"train: the data have missing entries, .* build it with a Transformer"):
        sgm.train(sgm.VP(), model, data, jr.key(1), steps=1)


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_a_transformer_learns_from_rows_with_holes():
    data = Arrays(HOLES, missing=True)
    network = sgm.nn.Transformer((3,), 16, 1, 2, conditioning=sgm.nn.Conditioning(observed=3), key=jr.key(0))
    model = sgm.ScoreModel(network, data=data)
    how = {"steps": 60, "batch_size": 64, "loss": sgm.Loss(masking=sgm.training.UniformSubsets()), "progress": False}
    _, trained, history = sgm.train(sgm.VP(), model, data, jr.key(1), **how)
    assert np.all(np.isfinite(history["loss"]))
    assert history["loss"][-20:].mean() < history["loss"][:5].mean()
    x = sgm.sample(sgm.VP(), trained, jr.key(2), 4, method=sgm.DPMSolverPP(3))
    assert bool(jnp.all(jnp.isfinite(x)))
    # Rows with holes have no density of all columns; the others do.
    report = sgm.evaluate(sgm.VP(), trained, data, [sgm.evaluation.LogLikelihood()], jr.key(3), n=20, progress=False)
    holes = np.any(np.isnan(data.rows("test", 0, 20)[0]), axis=1)
    np.testing.assert_array_equal(np.isnan(report.columns["log_prob"]), holes)
    assert f"{holes.sum()} of 20 are not finite, and left out" in report["log_prob"].note


@pytest.mark.quick
@pytest.mark.parametrize("space", [(8,), (4, 4), (4, 4, 4)], ids=["signals", "images", "volumes"])
def test_conditions_have_the_axes_of_the_examples(space):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, *space, 1)), rng.normal(size=(10, *(2 * size for size in space)))
    for image in (y, y[..., None]):
        data = Arrays(x, image=image)
        assert data.conditioning.image == (*(2 * size for size in space), 1)
        assert data.batch(0, 4, 0)[1]["image"].shape == (4, *data.conditioning.image)
    with pytest.raises(ValueError, match=r"Arrays: image has shape \(10,\); pass an image for each example"):
        Arrays(x, image=y.reshape(10, -1)[:, 0])
