import dataclasses
import json
import types
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from networks import randomised

import sgm
from sgm.data import Checkerboard, Digits, GaussianField, prefetch
from sgm.nn import Conditioning, with_statistics
from sgm.nn.condition import condition_from
from sgm.sde import LearnedLogSNR
from sgm.training.checkpoint import CheckpointError, checkpoint_path, latest_step, restore_checkpoint, save_checkpoint
from sgm.training.loop import (
    Recipe,
    TrainingDiverged,
    adam,
    held_out_loss,
    load_run,
    loss_and_gradients,
    train,
    train_step,
)
from sgm.training.loss import perturb
from sgm.training.times import UniformLogSNR, UniformTime
from sgm.training.weightings import LikelihoodWeighting

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")
STEPS = 40


def recipe(data=Digits(), **options):
    settings = dict(
        weighting=LikelihoodWeighting(), times=UniformLogSNR(), average_decay=0.99, levels=data.levels, key=jr.key(3)
    )
    return Recipe(**{**settings, "sde": sgm.VP(), "optimiser": adam(1e-3, 10, STEPS, 1.0), **options})


def model(width=16, shape=(8, 8, 1), dropout=0.1):
    network = sgm.nn.MLP(shape, width, 1, dropout=dropout, key=jr.key(0))
    return sgm.ScoreModel(network, sgm.model.Karras(0.7), shape=shape)


def batches(start, stop, data=Digits()):
    return prefetch(lambda step: (jax.device_put(data.batch(step, 32, 3)[0]), None), start, stop)


def held_out(data=Digits(), n=16):
    return data.rows("test", 0, n)[0], None


def run_to(steps, folder, fixed=None, **options):
    fixed = fixed or recipe()
    settings = {"log_every": 7, "checkpoint_every": 10, "sample_every": 1000, **options}
    return train(fixed, fixed.start(model()), batches, steps, folder, **settings)


def arrays(state):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(state, eqx.is_array))
    }


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    whole = run_to(STEPS, tmp_path / "whole", checkpoint_every=20, held_out=held_out())

    class Killed(Exception):
        pass

    def kill(start, stop):
        for step, batch in enumerate(batches(start, stop), start):
            if step == 25:  # Five steps after the checkpoint of step 20.
                raise Killed
            yield batch

    fixed = recipe()
    with pytest.raises(Killed):
        options = {"log_every": 1, "checkpoint_every": 20, "held_out": held_out()}
        train(fixed, fixed.start(model()), kill, STEPS, tmp_path / "killed", **options)
    assert latest_step(tmp_path / "killed") == 20 and len(lines(tmp_path / "killed")) == 25
    resumed = run_to(STEPS, tmp_path / "killed", checkpoint_every=20, held_out=held_out())
    first, second = arrays(whole), arrays(resumed)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert lines(tmp_path / "whole") == lines(tmp_path / "killed")
    assert [line["step"] for line in lines(tmp_path / "whole")] == list(range(1, STEPS + 1))


def test_training_learns_and_keeps_two_checkpoints(tmp_path):
    fixed = recipe(Checkerboard(), optimiser=adam(3e-3, 10, 300, 1.0), average_decay=0.9)
    seen = []
    state = train(
        fixed,
        fixed.start(model(32, (2,))),
        lambda start, stop: batches(start, stop, Checkerboard()),
        300,
        tmp_path,
        checkpoint_every=100,
        sample_every=150,
        on_sample=lambda state: seen.append(int(state.step)),
    )
    losses = [line["loss"] for line in lines(tmp_path)]
    assert np.mean(losses[-50:]) < 0.9 * np.mean(losses[:50])
    assert seen == [150, 300]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["200", "300"]
    assert int(state.step) == 300


def test_averages_warm_up_and_are_not_the_weights():
    fixed, state = recipe(average_decay=0.9), recipe().start(model())
    batch = next(batches(0, 1))
    before = np.asarray(state.average.network.outlet.bias)
    state, _ = train_step((fixed, batch), state)
    # The first decay is 1/10 whatever the final one.
    weights = np.asarray(state.model.network.outlet.bias)
    np.testing.assert_allclose(state.average.network.outlet.bias, before + 0.9 * (weights - before), rtol=1e-5)
    state, _ = train_step((fixed, batch), state)
    assert np.abs(np.asarray(state.average.network.outlet.bias) - np.asarray(state.model.network.outlet.bias)).max() > 0


def test_every_step_has_its_own_randomness():
    fixed, batch = recipe(optimiser=optax.sgd(0.0)), next(batches(0, 1))
    state = fixed.start(model())
    losses = []
    for _ in range(3):
        state, metrics = train_step((fixed, batch), state)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3


def test_the_learning_rate_rises_and_falls():
    optimiser = adam(1e-2, 5, 20, 1.0)
    state, sizes = optimiser.init(jnp.zeros(1)), []
    for _ in range(20):
        update, state = optimiser.update(jnp.ones(1), state)
        sizes.append(abs(float(update[0])))
    assert sizes[0] == 0 and sizes[5] == pytest.approx(1e-2, rel=0.01) and sizes[-1] < 2e-4
    assert np.all(np.diff(sizes[:6]) > 0) and np.all(np.diff(sizes[6:]) < 0)


def test_divergence_stops_with_the_step_and_the_last_good_checkpoint(tmp_path):
    def poisoned(start, stop):
        for step, (x, cond) in enumerate(batches(start, stop, Checkerboard()), start + 1):
            yield (x * jnp.nan if step == 26 else x), cond

    fixed = recipe(Checkerboard())
    with pytest.raises(TrainingDiverged, match=r"step 26 the gradient norm nan and the loss nan; .* \S*checkpoints/20"):
        train(fixed, fixed.start(model(16, (2,))), poisoned, STEPS, tmp_path, log_every=7, checkpoint_every=20)
    assert latest_step(tmp_path) == 20


@pytest.mark.parametrize("parts", [2, 8])
def test_accumulation_leaves_loss_and_gradient_unchanged(parts):
    data = GaussianField(resolution=4)
    x, fields = data.batch(0, 32, 0)
    batch = jnp.asarray(x), condition_from(fields)
    options = {"dropout": 0.2, "conditioning": Conditioning(params=2, null=True), "key": jr.key(0)}
    start = sgm.ScoreModel(randomised(sgm.nn.MLP((4, 4, 1), 16, 1, **options)), shape=(4, 4, 1))
    compiled = eqx.filter_jit(loss_and_gradients)
    fixed = {"data": data, "condition_dropout": 0.3, "sde": sgm.VP(LearnedLogSNR()), "times": UniformTime()}
    state = recipe(**fixed).start(start)
    loss, *gradients = compiled(recipe(**fixed), batch, state)
    again, *accumulated = compiled(recipe(**fixed, accumulate=parts), batch, state)
    assert all(bool(jnp.any(gradient != 0)) for gradient in jax.tree.leaves(gradients))
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    for first, second in zip(jax.tree.leaves(gradients), jax.tree.leaves(accumulated), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5 * float(jnp.abs(first).max() + 1e-3))


def test_a_batch_that_cannot_be_shared_raises(tmp_path):
    with pytest.raises(
        ValueError, match="batch of 32 cannot be split into accumulate = 5 parts for 1 devices each; pass"
    ):
        run_to(1, tmp_path, recipe(accumulate=5))


def test_the_held_out_loss_is_logged_with_every_checkpoint_and_changes_nothing(tmp_path):
    fixed = recipe()
    plain = run_to(25, tmp_path / "plain")
    state = run_to(25, tmp_path / "watched", held_out=held_out())
    for first, second in zip(jax.tree.leaves(plain.model), jax.tree.leaves(state.model), strict=True):
        np.testing.assert_array_equal(first, second)
    watched = lines(tmp_path / "watched")
    assert [line["step"] for line in watched if "held_out_loss" in line] == [10, 20, 25]
    assert not any("held_out_loss" in line for line in lines(tmp_path / "plain"))
    unwatched = [{name: line[name] for name in line if name != "held_out_loss"} for line in watched]
    assert unwatched == lines(tmp_path / "plain")
    # Neither dropout nor the step has a part in it.
    without_dropout = jax.tree.unflatten(jax.tree.structure(model(dropout=0.0)), jax.tree.leaves(state.average))
    for change in ({}, {"step": 0 * state.step}, {"average": without_dropout}):
        again = float(held_out_loss(fixed, dataclasses.replace(state, **change), held_out()))
        assert again == watched[-1]["held_out_loss"]
    assert float(held_out_loss(fixed, dataclasses.replace(state, average=state.model), held_out())) != again


def test_the_held_out_loss_of_a_trained_schedule_is_the_bound():
    options = {"sde": sgm.VP(LearnedLogSNR()), "times": UniformTime()}
    fixed = recipe(Checkerboard(), **options)
    state = fixed.start(sgm.ScoreModel(sgm.nn.MLP((2,), 8, 1, key=jr.key(0)), shape=(2,)))
    batch = jnp.asarray(Checkerboard().rows("test", 0, 4000)[0]), None
    as_in_training, _, _ = loss_and_gradients(fixed, batch, state)
    assert float(held_out_loss(fixed, state, batch)) == pytest.approx(float(as_in_training), rel=0.05)


@pytest.mark.usefixtures("types_unchecked")
def test_held_out_examples_that_cannot_be_shared_raise(tmp_path):
    message = "train: 2 devices cannot share 15 held-out examples evenly; pass a multiple"
    with pytest.raises(ValueError, match=message):
        run_to(1, tmp_path, held_out=held_out(n=15), mesh=types.SimpleNamespace(size=2))


def test_the_bar_says_that_the_first_step_is_compiled(tmp_path, capsys):
    run_to(10, tmp_path, held_out=held_out())
    begun = capsys.readouterr().err
    assert begun.count("compiling") == 1 and begun.index("compiling") < begun.index("loss=")
    assert "held_out=" in begun
    run_to(10, tmp_path)
    assert "compiling" not in capsys.readouterr().err


def test_data_far_from_unit_scale_are_named(tmp_path):
    def large(start, stop):
        return ((1e6 * x, cond) for x, cond in batches(start, stop, Checkerboard()))

    fixed = recipe(Checkerboard())
    with pytest.warns(UserWarning, match=r"train: x has the root mean square 2\.\d+e\+06 .*; pass \(x - mean\) / std"):
        train(fixed, fixed.start(model(16, (2,))), large, 1, tmp_path)


def test_grey_levels_are_judged_as_the_model_sees_them(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run_to(1, tmp_path)  # 0 to 16, of which the model sees -1 to 1


def test_a_run_begins_from_the_averages_of_another(tmp_path):
    first = run_to(10, tmp_path / "first")
    fixed = recipe(optimiser=adam(1e-4, 1, 5, 1.0))
    loaded = load_run(tmp_path / "first", recipe(), model())
    start = fixed.start(loaded.average)
    assert int(start.step) == 0
    np.testing.assert_array_equal(start.model.network.inlet.kernel, first.average.network.inlet.kernel)
    assert int(train(fixed, start, batches, 5, tmp_path / "second").step) == 5


class TestConditions:
    data = GaussianField(resolution=4)
    shape = (4, 4, 1)

    def start(self, null=False):
        network = sgm.nn.MLP(self.shape, 16, 1, conditioning=Conditioning(params=2, null=null), key=jr.key(0))
        network = with_statistics(network, *self.data.statistics())
        return sgm.ScoreModel(network, sgm.model.Karras(1.0), shape=self.shape)

    def batch(self, step=0):
        x, fields = self.data.batch(step, 64, 0)
        return jnp.asarray(x), condition_from(fields)

    def test_statistics_are_kept_through_training_and_on_disk(self, tmp_path):
        fixed = recipe(self.data, optimiser=optax.adamw(1e-2, weight_decay=0.5))
        state = fixed.start(self.start())
        for step in range(3):
            state, _ = train_step((fixed, self.batch(step)), state)
        save_checkpoint(tmp_path, 3, state)
        restored = restore_checkpoint(tmp_path, 3, fixed.start(self.start()))
        for part in (state.model, state.average, restored.average):
            np.testing.assert_array_equal(part.network.embedding.standardisation.mean.value, self.data.statistics()[0])
            np.testing.assert_array_equal(part.network.embedding.standardisation.std.value, self.data.statistics()[1])
        first, last = (part.network.embedding.params.kernel for part in (self.start(), state.model))
        assert not np.array_equal(first, last)

    def test_conditions_are_dropped_at_the_rate(self):
        x, cond = self.batch()
        options = dict(weighting=LikelihoodWeighting(), times=UniformLogSNR())
        perturbed = perturb(sgm.VP(), self.start(null=True), x, jr.key(0), cond=cond, condition_dropout=0.3, **options)
        assert 0.1 < float(perturbed.cond.dropped.mean()) < 0.5
        again = perturb(sgm.VP(), self.start(null=True), x, jr.key(1), cond=cond, condition_dropout=0.3, **options)
        assert not np.array_equal(perturbed.cond.dropped, again.cond.dropped)
        with pytest.raises(ValueError, match="built without a null"):
            sgm.score_matching_loss(sgm.VP(), self.start(), x, jr.key(0), cond=cond, condition_dropout=0.3)

    def test_the_null_is_trained(self):
        fixed = recipe(self.data, condition_dropout=0.5)
        start = self.start(null=True)
        state = fixed.start(start)
        for step in range(5):  # the first ones move the zero-initialised layers alone
            state, _ = train_step((fixed, self.batch(step)), state)
        assert not np.array_equal(state.model.network.embedding.null, start.network.embedding.null)


class TestCheckpoints:
    def saved(self, folder):
        state = recipe().start(model())
        for step in (1, 2):
            save_checkpoint(folder, step, state)
        return state

    def test_round_trip(self, tmp_path):
        state = self.saved(tmp_path)
        like = eqx.filter_eval_shape(lambda: recipe().start(model()))
        restored = restore_checkpoint(tmp_path, 2, like)
        first, second = arrays(state), arrays(restored)
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])

    def test_no_checkpoint(self, tmp_path):
        assert latest_step(tmp_path) is None

    def test_another_model(self, tmp_path):
        self.saved(tmp_path)
        with pytest.raises(
            CheckpointError, match=r"checkpoints/2: it is of another model; at \S+ it has shape .* but the model"
        ):
            restore_checkpoint(tmp_path, 2, recipe().start(model(width=24)))

    @pytest.mark.parametrize("damage", ["cut", "delete"])
    def test_cut_short(self, tmp_path, damage):
        state = self.saved(tmp_path)
        files = [path for path in checkpoint_path(tmp_path, 2).rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        if damage == "cut":
            largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
        else:
            largest.unlink()
        with pytest.raises(CheckpointError, match=r"checkpoints/2: it cannot be read .* delete this folder"):
            restore_checkpoint(tmp_path, 2, state)
        assert restore_checkpoint(tmp_path, 1, state) is not None

    def test_a_crash_while_writing_leaves_the_one_before(self, tmp_path):
        self.saved(tmp_path)
        left_over = checkpoint_path(tmp_path, 3)
        left_over = left_over.with_name("3.orbax-checkpoint-tmp-0")
        left_over.mkdir()
        (left_over / "data").write_bytes(b"half")
        assert latest_step(tmp_path) == 2
