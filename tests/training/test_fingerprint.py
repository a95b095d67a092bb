import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import sgm
from sgm.data import Checkerboard, Moons
from sgm.sde import LearnedLogSNR
from sgm.training.checkpoint import CheckpointError, restore_checkpoint
from sgm.training.fingerprint import RunMismatch, behaviour, fingerprint
from sgm.training.loop import Recipe, adam, load_run, train
from sgm.training.times import NormalLogSNR, UniformLogSNR, UniformTime
from sgm.training.weightings import KarrasWeighting, LikelihoodWeighting

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = 4
PARAMETERS = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}


def recipe(**options):
    settings = dict(weighting=LikelihoodWeighting(), times=UniformLogSNR(), optimiser=adam(1e-3, 1, STEPS, 1.0))
    return Recipe(**{**settings, "sde": sgm.VP(), "average_decay": 0.99, "levels": None, "key": jr.key(3), **options})


def model(width=8, sigma_data=1.0, depth=1, **options):
    network = sgm.nn.MLP((2,), width, depth, key=jr.key(0), **options)
    return sgm.ScoreModel(network, sgm.model.Karras(sigma_data), shape=(2,))


def batches(data=Checkerboard(), size=16):
    return lambda start, stop: ((data.batch(step, size, 0)[0], None) for step in range(start, stop))


def run_to(steps, folder, fixed=None, start=None, of=None):
    fixed = fixed or recipe()
    return train(fixed, fixed.start(start or model()), of or batches(), steps, folder, checkpoint_every=2)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "begun"
    run_to(2, folder)
    return folder


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dict(fixed=recipe(key=jr.key(4))), r"recipe\.key: 0 3, not 0 4"),
        (dict(fixed=recipe(average_decay=0.9)), r"recipe\.average_decay: 0\.99, not 0\.9\."),
        (dict(fixed=recipe(sde=sgm.VE())), r"recipe\.sde: VP, not VE"),
        (dict(fixed=recipe(sde=sgm.VP(sgm.sde.Linear(beta_max=19.0)))), r"schedule\.beta_max: 20\.0, not 19\.0"),
        (
            dict(fixed=recipe(weighting=KarrasWeighting(0.5), times=NormalLogSNR())),
            r"recipe\.weighting: LikelihoodWeighting, not KarrasWeighting; recipe\.times: UniformLogSNR, not Normal",
        ),
        (dict(fixed=recipe(optimiser=adam(2e-3, 1, STEPS, 1.0))), r"than these: recipe\.optimiser\. Pass"),
        (dict(start=model(width=9)), r"model\.network\.inlet\.kernel: float32\(2, 8\), not float32\(2, 9\); .* more"),
        (dict(start=model(sigma_data=0.5)), r"than these: model\.prediction\.sigma_data: 1\.0, not 0\.5\. Pass"),
        (dict(start=model(dropout=0.1)), r"model\.network\.blocks\.0\.rate: 0\.0, not 0\.1"),
        (dict(of=batches(Moons())), r"than these: data\.x\.values\. Pass"),
        (dict(of=batches(size=32)), r"data\.x\.shape: float32\(16, 2\), not float32\(32, 2\)"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(begun, other, named):
    with pytest.raises(RunMismatch, match=rf"train: the run in .* was begun with other settings .*{named}"):
        run_to(STEPS, begun, **other)


def test_the_same_run_goes_on_and_then_says_that_it_is_done(tmp_path, capsys):
    run_to(2, tmp_path)
    # Neither the memory that a gradient takes nor the weights of the template matter.
    state = run_to(STEPS, tmp_path, recipe(accumulate=2), model(remat=True))
    assert int(state.step) == STEPS and "nothing to train" not in capsys.readouterr().out
    again = run_to(STEPS, tmp_path)
    assert f"train: nothing to train, since 4 of 4 steps are done in {tmp_path}" in capsys.readouterr().out
    for first, second in zip(jax.tree.leaves(state.average), jax.tree.leaves(again.average), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_folder_that_does_not_say_what_it_was_begun_with_is_refused(tmp_path):
    run_to(2, tmp_path)
    path = tmp_path / "fingerprint.json"
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(RunMismatch, match=r"fingerprint\.json is not JSON \(.*\); restore it, or begin in another"):
        run_to(STEPS, tmp_path)
    path.unlink()
    with pytest.raises(RunMismatch, match=r"fingerprint\.json is missing\); restore that file, or begin in another"):
        run_to(STEPS, tmp_path)
    path.write_text(whole)
    assert int(run_to(STEPS, tmp_path).step) == STEPS


def test_a_run_without_a_checkpoint_takes_other_settings(tmp_path):
    def stops(start, stop):
        yield from batches()(0, 1) if stop == 1 else ()

    run_to(2, tmp_path, of=stops)
    assert int(run_to(2, tmp_path, recipe(key=jr.key(4))).step) == 2


def test_batches_that_yield_nothing_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"train: batches\(0, 1\) yields nothing; let it yield the batch of the first"):
        run_to(2, tmp_path, of=lambda start, stop: iter(()))


def test_a_run_is_loaded_by_its_recipe_and_a_model_like_its_own(begun):
    fixed = recipe()
    state = load_run(begun, fixed, model())
    restored = restore_checkpoint(begun, 2, fixed.start(model()))
    assert eqx.tree_equal(state, restored) and int(state.step) == 2
    # One whose recipe is forgotten in part.
    assert eqx.tree_equal(load_run(begun, recipe(optimiser=adam(1.0, 2, 9, 9.0)), model()).average, state.average)
    with pytest.raises(RunMismatch, match=r"load_run: .* model\.prediction\.sigma_data: 1\.0, not 0\.7"):
        load_run(begun, fixed, model(sigma_data=0.7))
    with pytest.raises(CheckpointError, match=r"load_run: there is no checkpoint in .*; pass the folder of a run"):
        load_run(begun / "elsewhere", fixed, model())


def test_a_trained_schedule_is_of_the_run(tmp_path):
    learned = dict(sde=sgm.VP(LearnedLogSNR()), times=UniformTime())
    run_to(2, tmp_path, recipe(**learned))
    with pytest.raises(RunMismatch, match=r"than these: recipe\.process_optimiser\. Pass"):
        run_to(STEPS, tmp_path, recipe(**learned, process_optimiser=optax.adam(1e-2)))
    state = load_run(tmp_path, recipe(**learned), model())
    assert not np.array_equal(state.process.schedule.ends, LearnedLogSNR().ends)


OPTIMISERS = {
    "rate": optax.adam(1e-3),
    "another rate": optax.adam(1.001e-3),
    "momentum": optax.adam(1e-3, b1=0.91),
    "decay": optax.adamw(1e-3, weight_decay=1e-3),
    "another method": optax.sgd(1e-3),
    "clip": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
    "another clip": optax.chain(optax.clip_by_global_norm(1.1), optax.adam(1e-3)),
    "warmup": adam(1e-3, 100, 1000, 1.0),
    "another warmup": adam(1e-3, 101, 1000, 1.0),
    "another end": adam(1e-3, 100, 1001, 1.0),
    "late drop": optax.adam(optax.piecewise_constant_schedule(1e-3, {100_000: 0.1})),
    "accumulated": optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(),
    "accumulated longer": optax.MultiSteps(optax.adam(1e-3), 5).gradient_transformation(),
    "masked": optax.masked(optax.adam(1e-3), {"kernel": True, "bias": False}),
    "masked otherwise": optax.masked(optax.adam(1e-3), {"kernel": False, "bias": True}),
}


def test_optimisers_are_told_apart_by_what_they_do():
    found = {name: np.asarray(behaviour(optimiser, PARAMETERS)) for name, optimiser in OPTIMISERS.items()}
    for name, numbers in found.items():
        assert np.all(np.isfinite(numbers)), name
        same = [other for other in found if np.abs(found[other] - numbers).max() < 1e-5 * np.abs(numbers).max()]
        assert same == [name]
    np.testing.assert_array_equal(behaviour(optax.adam(1e-3), PARAMETERS), found["rate"])


def test_a_fingerprint_is_json_and_knows_settings_of_any_kind():
    class Odd(sgm.training.AbstractWeighting):
        table: np.ndarray
        function: object
        names: dict

        def weight(self, sde, t):
            return t

    def described(table=np.arange(3.0), function=jnp.sin, names=None):
        odd = Odd(table, function, names or {"a": (1, "b"), "c": np.float32(0.5)})
        return fingerprint(dataclasses.replace(recipe(), weighting=odd), model(), (np.ones((4, 2)), None))

    assert json.loads(json.dumps(described())) == described()
    for change in (dict(table=np.arange(1, 4.0)), dict(function=jnp.cos), dict(names={"a": (2, "b"), "c": 0.5})):
        assert described(**change) != described()


def test_sums_of_another_device_are_the_same_up_to_rounding(begun, tmp_path):
    path = begun / "fingerprint.json"
    saved = json.loads(path.read_text())
    try:
        for size, refused in ((1e-7, False), (1e-3, True)):
            moved = jax.tree.map(lambda leaf: leaf * (1 + size) if isinstance(leaf, float) else leaf, saved["data"])  # noqa: B023
            path.write_text(json.dumps({**saved, "data": moved}))
            if refused:
                with pytest.raises(RunMismatch, match=r"data\.x\.values"):
                    run_to(2, begun)
            else:
                run_to(2, begun)
    finally:
        path.write_text(json.dumps(saved))
