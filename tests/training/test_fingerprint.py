import json

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import sgm
from sgm.data import Checkerboard, Moons
from sgm.sde import LearnedLogSNR
from sgm.training import Adam, AdamW, KarrasWeighting, Loss, NormalLogSNR, RunMismatch, UniformTime, load_run
from sgm.training.checkpoint import CheckpointError, latest_step
from sgm.training.fingerprint import behaviour, fingerprint
from sgm.training.step import Recipe

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = 4
PARAMETERS = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}


def adam(rate, warmup, steps, clip):
    return Adam(rate, warmup, clip).build(steps)


def model(width=8, sigma_data=1.0, depth=1, data=Checkerboard(), **options):
    network = sgm.nn.MLP((2,), width, depth, key=jr.key(0), **options)
    return sgm.ScoreModel(network, sgm.model.Karras(sigma_data), data=data)


def run_to(folder, *, stop=None, sde=sgm.VP(), start=None, data=Checkerboard(), key=jr.key(3), **options):
    def interrupt(step, metrics, state):
        # The checkpoint of the step before is written.
        if stop is not None and step > stop:
            raise KeyboardInterrupt

    settings = {"steps": STEPS, "batch_size": 16, "optimiser": Adam(warmup=1), "average_decay": 0.99, **options}
    how = {"run": folder, "checkpoint_every": 2, "log_every": 1, "callbacks": [interrupt], "progress": False}
    try:
        return sgm.train(sde, start or model(data=data), data, key, **settings, **how)
    except KeyboardInterrupt:
        return None


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "begun"
    run_to(folder, stop=2)
    assert latest_step(folder) == 2
    return folder


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dict(key=jr.key(4)), r"recipe\.key: 0 3, not 0 4"),
        (dict(average_decay=0.9), r"recipe\.average_decay: 0\.99, not 0\.9[;.]"),
        (dict(sde=sgm.VE()), r"recipe\.sde: VP, not VE"),
        (dict(sde=sgm.VP(sgm.sde.Linear(beta_max=19.0))), r"schedule\.beta_max: 20\.0, not 19\.0"),
        (
            dict(loss=Loss(KarrasWeighting(0.5), NormalLogSNR())),
            r"loss\.weighting: LikelihoodWeighting, not KarrasWeighting; recipe\.loss\.times: UniformLogSNR, not ",
        ),
        (dict(optimiser=Adam(2e-3, warmup=1)), r"recipe\.optimiser\.learning_rate: 0\.001, not 0\.002"),
        (dict(optimiser=AdamW(warmup=1)), r"recipe\.optimiser: Adam, not AdamW"),
        (dict(optimiser=optax.adam(1e-3)), r"recipe\.optimiser"),
        (dict(steps=5), r"recipe\.steps: 4, not 5"),
        (dict(start=model(width=9)), r"inlet\.kernel: float32\(2, 8\), not float32\(2, 9\)"),
        (dict(start=model(sigma_data=0.5)), r"than these: model\.prediction\.sigma_data: 1\.0, not 0\.5\. Pass"),
        (dict(start=model(dropout=0.1)), r"model\.network\.\S*: 0\.0, not 0\.1"),
        (dict(data=Moons()), r"than these: data\.x\.values\. Pass"),
        (dict(batch_size=32), r"data\.x\.shape: float32\(16, 2\), not float32\(32, 2\)"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(begun, other, named):
    with pytest.raises(RunMismatch, match=rf"train: the run in .* was begun with other settings .*{named}"):
        run_to(begun, **other)


def test_the_same_run_goes_on_and_then_says_that_it_is_done(tmp_path, capsys):
    run_to(tmp_path, stop=2)
    # Neither the memory that a gradient takes nor the weights of the template matter.
    _, trained, _ = run_to(tmp_path, accumulate=2, start=model(remat=True))
    assert latest_step(tmp_path) == STEPS and "nothing to train" not in capsys.readouterr().out
    _, again, history = run_to(tmp_path)
    assert f"train: nothing to train, since 4 of 4 steps are done in {tmp_path}" in capsys.readouterr().out
    assert len(history["loss"]) == STEPS
    for first, second in zip(jax.tree.leaves(trained), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_folder_that_does_not_say_what_it_was_begun_with_is_refused(tmp_path):
    run_to(tmp_path, stop=2)
    path = tmp_path / "fingerprint.json"
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(RunMismatch, match=r"fingerprint\.json is not JSON \(.*\); restore it, or begin in another"):
        run_to(tmp_path)
    path.unlink()
    with pytest.raises(RunMismatch, match=r"fingerprint\.json is missing\); restore that file, or begin in another"):
        run_to(tmp_path)
    path.write_text(whole)
    run_to(tmp_path)
    assert latest_step(tmp_path) == STEPS


def test_a_run_without_a_checkpoint_takes_other_settings(tmp_path):
    run_to(tmp_path, stop=0)
    assert latest_step(tmp_path) is None
    run_to(tmp_path, key=jr.key(4))
    assert latest_step(tmp_path) == STEPS


def test_a_run_that_is_older_than_an_option_goes_on(tmp_path):
    run_to(tmp_path, stop=2)
    path = tmp_path / "fingerprint.json"
    written = json.loads(path.read_text())
    del written["recipe"]["trained"], written["model"]["network"]["frequencies"]
    path.write_text(json.dumps(written))
    run_to(tmp_path)
    assert latest_step(tmp_path) == STEPS
    # A block that the run does not have is no option.
    with pytest.raises(RunMismatch, match=r"model\.network\.depth: 1, not 2"):
        load_run(tmp_path, sgm.VP(), model(depth=2))


def test_a_run_is_loaded_by_a_model_like_its_own(begun):
    _, loaded = load_run(begun, sgm.VP(), model())
    assert not np.array_equal(loaded.network.outlet.bias, model().network.outlet.bias)
    with pytest.raises(RunMismatch, match=r"load_run: .* model\.prediction\.sigma_data: 1\.0, not 0\.7"):
        load_run(begun, sgm.VP(), model(sigma_data=0.7))
    with pytest.raises(CheckpointError, match=r"elsewhere: it has no checkpoint yet; train it first"):
        load_run(begun / "elsewhere", sgm.VP(), model())


@pytest.mark.slow
def test_a_trained_schedule_is_of_the_run(tmp_path):
    learned = dict(sde=sgm.VP(LearnedLogSNR()), loss=Loss(times=UniformTime()))
    run_to(tmp_path, stop=2, **learned)
    with pytest.raises(RunMismatch, match=r"than these: recipe\.optimiser\.learning_rate: 0\.001, not 0\.01\. Pass"):
        run_to(tmp_path, **learned, optimiser=Adam(1e-2, warmup=1))
    sde, _ = load_run(tmp_path, learned["sde"], model())
    assert not np.array_equal(sde.schedule.ends, LearnedLogSNR().ends)


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
        recipe = Recipe(sgm.VP(), Loss(odd), optax.adam(1e-3), jr.key(0))
        return fingerprint(recipe, Adam(), 4, model(), (np.ones((4, 2)), None))

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
                    run_to(begun)
            else:
                run_to(begun, stop=2)
    finally:
        path.write_text(json.dumps(saved))
