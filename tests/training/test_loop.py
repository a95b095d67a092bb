import dataclasses
import json
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
from sgm.data import Checkerboard, Digits, GaussianField
from sgm.nn import Conditioning
from sgm.nn.condition import condition_from
from sgm.sde import LearnedLogSNR
from sgm.training import Adam, CheckpointError, Loss, Muon, TrainingDiverged, latest_step, load_run
from sgm.training.checkpoint import Checkpoints, checkpoint_path, restore_checkpoint
from sgm.training.learned_schedule import ScheduleRecipe
from sgm.training.loop import _check_batch
from sgm.training.step import Recipe, held_out_loss, train_step
from sgm.training.times import UniformTime

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")
STEPS = 40
DIGITS = Digits()


@dataclasses.dataclass(frozen=True)
class Altered(Checkerboard):
    """A checkerboard whose batches may be spoilt at a step."""

    at: int = 0
    how: str = "nan"

    def batch(self, step, batch_size, seed):
        x, fields = super().batch(step, batch_size, seed)
        if step != self.at:
            return x, fields
        if self.how == "kill":
            raise KeyboardInterrupt
        return x * np.nan, fields


def model(width=16, data=DIGITS, dropout=0.1):
    network = sgm.nn.MLP(data.shape, width, 1, dropout=dropout, key=jr.key(0))
    return sgm.ScoreModel(network, sgm.model.Karras(0.7), data=data)


def recipe(optimiser=optax.adam(1e-3), levels=17, **options):
    return Recipe(sgm.VP(), Loss(), optimiser, jr.key(3), levels=levels, **options)


def other(**options):
    return sgm.ScoreModel(sgm.nn.MLP(options["shape"], 8, 1, key=jr.key(0)), **options)


def train(data=DIGITS, run=None, **options):
    settings = {"steps": STEPS, "batch_size": 32, "log_every": 7, "checkpoint_every": 10, "progress": False}
    start = options.pop("model", None) or model(data=data)
    return sgm.train(sgm.VP(), start, data, jr.key(3), run=run, **{**settings, **options})


def batch(step=0, data=DIGITS):
    return jax.device_put(data.batch(step, 32, 3)[0]), None


def arrays(state):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(state, eqx.is_array))
    }


def assert_same(first, second):
    first, second = arrays(first), arrays(second)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of `Altered` that nothing disturbs, and what it returns."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train(Altered(at=10**6), folder, checkpoint_every=20)


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        train(Altered(at=25, how="kill"), tmp_path, log_every=1, checkpoint_every=20)
    assert latest_step(tmp_path) == 20 and len(lines(tmp_path)) == 25
    data = Altered(at=10**6)
    _, resumed, history = train(data, tmp_path, checkpoint_every=20)
    folder, (_, expected, expected_history) = whole
    assert_same(expected, resumed)
    assert lines(folder) == lines(tmp_path)
    for name in expected_history:
        np.testing.assert_array_equal(history[name], expected_history[name])
    np.testing.assert_array_equal(history["step"], 1 + np.arange(STEPS))


def test_a_run_without_a_folder_is_the_same(whole):
    _, trained, history = train(Altered(at=10**6), checkpoint_every=20)
    assert_same(whole[1][1], trained)
    np.testing.assert_array_equal(history["loss"], whole[1][2]["loss"])


def test_the_model_that_was_given_is_left_as_it_is():
    start = model(data=Checkerboard())
    before = arrays(start)
    train(Checkerboard(), model=start)
    for name, value in arrays(start).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_run_is_loaded_in_a_later_session(whole):
    folder, (_, trained, _) = whole
    data = Altered(at=10**6)
    sde, loaded = load_run(folder, sgm.VP(), model(data=data))
    assert_same(trained, loaded)
    assert eqx.tree_equal(loaded.units, data.units) and sde == sgm.VP()
    _, raw = load_run(folder, sgm.VP(), model(data=data), average=False)
    assert not np.array_equal(raw.network.outlet.bias, loaded.network.outlet.bias)


def test_training_learns_and_keeps_two_checkpoints(tmp_path):
    options = {"optimiser": Adam(3e-3, warmup=10), "average_decay": 0.9, "steps": 300, "checkpoint_every": 100}
    data = Checkerboard()
    start = sgm.ScoreModel(sgm.nn.MLP((2,), 32, 1, key=jr.key(0)), data=data)
    _, _, history = train(data, tmp_path, model=start, **options)
    held_out = history["held_out_loss"][99::100]  # On the same noise and times.
    assert held_out[-1] < held_out[0] - 0.1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["200", "300"]


def test_callbacks_see_steps_metrics_and_the_state():
    seen = []

    def callback(step, metrics, state):
        seen.append((step, metrics, int(state.step), state.average.shape))

    _, _, history = train(Checkerboard(), callbacks=[callback])
    assert [each[0] for each in seen] == [each[2] for each in seen] == [7, 10, 14, 20, 21, 28, 30, 35, 40]
    assert seen[0][1]["loss"] == pytest.approx(np.mean(history["loss"][:7])) and seen[0][3] == (2,)
    assert "held_out_loss" in seen[1][1] and "held_out_loss" not in seen[0][1]


@pytest.mark.slow_except("optimiser0", "optimiser3")
@pytest.mark.parametrize("optimiser", [optax.sgd(1e-3), optax.adamw(1e-3), Adam(1e-2), Muon(1e-2)])
def test_any_optimiser_trains(optimiser):
    data = Checkerboard()
    _, trained, _ = train(data, steps=2, optimiser=optimiser)
    assert not np.array_equal(trained.network.outlet.bias, model(data=data).network.outlet.bias)


@pytest.mark.slow
def test_optimisers_that_promote_types_train_under_strict_promotion(tmp_path):
    with jax.numpy_dtype_promotion("strict"):
        _, _, history = train(Checkerboard(), steps=1, optimiser=optax.adam(1e-3), run=tmp_path)
    assert np.isfinite(history["loss"]).all()


def test_averages_warm_up_and_are_not_the_weights():
    fixed = recipe(average_decay=0.9)
    state = fixed.start(model())
    before = np.asarray(state.average.network.outlet.bias)
    state, _ = train_step((fixed, batch()), state)
    # The first decay is 1/10 whatever the final one.
    weights = np.asarray(state.model.network.outlet.bias)
    np.testing.assert_allclose(state.average.network.outlet.bias, before + 0.9 * (weights - before), rtol=1e-5)
    state, _ = train_step((fixed, batch()), state)
    assert np.abs(np.asarray(state.average.network.outlet.bias) - np.asarray(state.model.network.outlet.bias)).max() > 0


def test_every_step_has_its_own_randomness():
    fixed = recipe(optax.sgd(0.0))
    state, losses = fixed.start(model()), []
    for _ in range(3):
        state, metrics = train_step((fixed, batch()), state)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3


def test_divergence_stops_with_the_step_and_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"step 26 the gradient norm nan and the loss nan; .* \S*checkpoints/20"):
        train(Altered(at=25), tmp_path, checkpoint_every=20)
    assert latest_step(tmp_path) == 20
    with pytest.raises(TrainingDiverged, match=r"step 26 .* there is no checkpoint; lower the learning rate"):
        train(Altered(at=25))


@pytest.mark.slow_except("2")
@pytest.mark.parametrize("parts", [2, 8])
def test_accumulation_leaves_loss_and_gradient_unchanged(parts):
    data = GaussianField(resolution=4)
    x, fields = data.batch(0, 32, 0)
    examples = jnp.asarray(x), condition_from(fields)
    options = {"dropout": 0.2, "conditioning": Conditioning(params=2, null=True), "key": jr.key(0)}
    start = sgm.ScoreModel(randomised(sgm.nn.MLP((4, 4, 1), 16, 1, **options)), shape=(4, 4, 1))
    compiled = eqx.filter_jit(ScheduleRecipe.loss_and_gradients)

    def fixed(accumulate):
        loss = Loss(times=UniformTime(), condition_dropout=0.3)
        plain = Recipe(sgm.VP(LearnedLogSNR()), loss, optax.adam(1e-3), jr.key(3), accumulate=accumulate)
        return ScheduleRecipe(plain, optax.adam(1e-3))

    state = fixed(1).start(start)
    loss, *gradients = compiled(fixed(1), state, examples)
    again, *accumulated = compiled(fixed(parts), state, examples)
    assert all(bool(jnp.any(gradient != 0)) for gradient in jax.tree.leaves(gradients))
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    for first, second in zip(jax.tree.leaves(gradients), jax.tree.leaves(accumulated), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5 * float(jnp.abs(first).max() + 1e-3))


def test_the_held_out_loss_is_logged_with_every_checkpoint():
    fixed = recipe()
    _, _, history = train(steps=25)
    assert list(history["step"][np.isfinite(history["held_out_loss"])]) == [10, 20, 25]
    # Neither dropout nor the step has a part in it.
    state, held_out = fixed.start(model()), (DIGITS.rows("test", 0, 16)[0], None)
    state, _ = train_step((fixed, batch()), state)
    expected = float(held_out_loss(fixed, state, held_out))
    without_dropout = jax.tree.unflatten(jax.tree.structure(model(dropout=0.0)), jax.tree.leaves(state.average))
    for change in ({"step": 0 * state.step}, {"average": without_dropout}):
        assert float(held_out_loss(fixed, dataclasses.replace(state, **change), held_out)) == expected
    assert float(held_out_loss(fixed, dataclasses.replace(state, average=state.model), held_out)) != expected


@pytest.mark.slow
def test_the_held_out_loss_of_a_trained_schedule_is_the_bound():
    plain = Recipe(sgm.VP(LearnedLogSNR()), Loss(times=UniformTime()), optax.adam(1e-3), jr.key(3))
    fixed = ScheduleRecipe(plain, optax.adam(1e-3))
    state = fixed.start(sgm.ScoreModel(sgm.nn.MLP((2,), 8, 1, key=jr.key(0)), shape=(2,)))
    examples = jnp.asarray(Checkerboard().rows("test", 0, 4000)[0]), None
    as_in_training, _, _ = fixed.loss_and_gradients(state, examples)
    assert float(held_out_loss(fixed, state, examples)) == pytest.approx(float(as_in_training), rel=0.05)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 5}, "a batch of 32 cannot be split into accumulate = 5 parts for 1 devices each; pass"),
        ({"mesh": 3}, r"train: mesh = 3; pass an instance such as sgm.parallel.mesh\(\)"),
        ({"steps": 0}, "train: steps = 0; pass steps >= 1"),
        ({"loss": "Karras"}, r"train: loss = 'Karras'; pass an instance such as sgm.training.Loss\(\)"),
        ({"optimiser": 1e-3}, r"train: optimiser = 0.001; pass an instance such as sgm.training.Adam\(1e-3\) or optax"),
        ({"data": np.zeros((10, 2))}, r"train: data is a ndarray; pass an instance such as sgm.data.Arrays\(x\)"),
        ({"model": other(shape=(3,))}, r"are of shape \(8, 8, 1\), but the model is of .* \(3,\); pass ScoreModel\("),
        (
            {"model": other(shape=(8, 8, 1), units=sgm.Units.of_levels(256))},
            r"the data have 17 grey levels, but the units of the model are others; pass ScoreModel\(network, data=dat",
        ),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        train(**{"model": model(), **options})


def test_a_batch_that_devices_do_not_share_is_named():
    with pytest.raises(ValueError, match="a batch of 32 cannot be split into accumulate = 1 parts for 3 devices each"):
        _check_batch(32, 1, 3)


def test_the_bar_says_that_the_first_step_is_compiled(capsys):
    train(steps=25, progress=True)
    begun = capsys.readouterr().err
    assert begun.count("compiling") == 1 and begun.index("compiling") < begun.index("loss ")
    assert "held_out " in begun
    train(steps=25)
    assert capsys.readouterr().err == ""


def test_data_far_from_unit_scale_are_named():
    data, start = Checkerboard(), other(shape=(2,), units=sgm.Units(0.0, 1e-6))
    with pytest.warns(UserWarning, match=r"train: x has the root mean square .*e\+06 .*; give the model the units"):
        sgm.train(sgm.VP(), start, data, jr.key(0), steps=1, batch_size=32, progress=False)


def test_parameters_far_from_unit_scale_are_named():
    rng = np.random.default_rng(0)
    data = sgm.data.Arrays(rng.normal(size=(40, 2)), params=1e6 + rng.normal(size=(40, 1)))
    network = sgm.nn.MLP((2,), 8, 1, conditioning=data.conditioning, key=jr.key(0))
    how = {"steps": 1, "batch_size": 8, "progress": False}
    with pytest.warns(UserWarning, match=r"train: the params have the root mean squares \[1000000.*with_statistics"):
        sgm.train(sgm.VP(), sgm.ScoreModel(network, shape=(2,)), data, jr.key(0), **how)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sgm.train(sgm.VP(), sgm.ScoreModel(network, data=data), data, jr.key(0), **how)


def test_grey_levels_are_judged_as_the_model_sees_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(steps=25)  # 0 to 16, of which the model sees -1 to 1


class TestConditions:
    data = GaussianField(resolution=4)
    shape = (4, 4, 1)

    def start(self, null=False):
        network = sgm.nn.MLP(self.shape, 16, 1, conditioning=Conditioning(params=2, null=null), key=jr.key(0))
        return sgm.ScoreModel(network, sgm.model.Karras(1.0), data=self.data)

    def batch(self, step=0):
        x, fields = self.data.batch(step, 64, 0)
        return jnp.asarray(x), condition_from(fields)

    def test_statistics_are_kept_through_training_and_on_disk(self, tmp_path):
        fixed = recipe(optax.adamw(1e-2, weight_decay=0.5), levels=None)
        state = fixed.start(self.start())
        for step in range(3):
            state, _ = train_step((fixed, self.batch(step)), state)
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(3, state)
        restored = restore_checkpoint(tmp_path, 3, fixed.start(self.start()))
        for part in (state.model, state.average, restored.average):
            np.testing.assert_array_equal(part.network.embedding.standardisation.mean.value, self.data.statistics()[0])
            np.testing.assert_array_equal(part.network.embedding.standardisation.std.value, self.data.statistics()[1])
        first, last = (part.network.embedding.params.kernel for part in (self.start(), state.model))
        assert not np.array_equal(first, last)

    def test_conditions_are_dropped_at_the_rate(self):
        x, cond = self.batch()
        loss = Loss(condition_dropout=0.3)
        perturb = eqx.filter_jit(lambda model, key: loss.perturb(sgm.VP(), model, x, key, cond).cond.dropped)
        dropped = [perturb(self.start(null=True), jr.key(seed)) for seed in (0, 1)]
        assert 0.1 < float(dropped[0].mean()) < 0.5 and not np.array_equal(*dropped)
        with pytest.raises(ValueError, match="built without a null"):
            loss(sgm.VP(), self.start(), x, jr.key(0), cond)

    def test_the_null_is_trained(self):
        fixed = Recipe(sgm.VP(), Loss(condition_dropout=0.5), optax.adam(1e-3), jr.key(3))
        start = self.start(null=True)
        state = fixed.start(start)
        for step in range(5):  # the first ones move the zero-initialised layers alone
            state, _ = train_step((fixed, self.batch(step)), state)
        assert not np.array_equal(state.model.network.embedding.null, start.network.embedding.null)


class TestCheckpoints:
    def saved(self, folder):
        state = recipe().start(model())
        with Checkpoints(folder) as checkpoints:
            for step in (1, 2):
                checkpoints.save(step, state)
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
