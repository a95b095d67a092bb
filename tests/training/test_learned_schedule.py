import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from truth import gaussian, mixture

import sgm
from sgm.data import Checkerboard
from sgm.model import Gaussian
from sgm.sde import LearnedLogSNR
from sgm.training import Adam, Loss
from sgm.training.learned_schedule import (
    ScheduleRecipe,
    end_terms,
    has_learned_part,
    learned_part,
    schedule_gradients,
)
from sgm.training.loss import levels_at
from sgm.training.step import Recipe
from sgm.training.times import UniformLogSNR, UniformTime
from sgm.training.weightings import LikelihoodWeighting

# optax and Orbax promote types.
pytestmark = pytest.mark.usefixtures("standard_promotion")


def bent(ratio_min=1e-3, ratio_max=1e2):
    """A schedule far from linear, as one is in the midst of training."""
    schedule = LearnedLogSNR(ratio_min, ratio_max)
    heights = schedule.heights + 1.5 * jr.normal(jr.key(0), schedule.heights.shape)
    return eqx.tree_at(lambda schedule: schedule.heights, schedule, heights)


@pytest.mark.parametrize("schedule", [LearnedLogSNR(), bent()])
class TestSchedule:
    t = jnp.linspace(0, 1, 1001)

    def test_log_snr_falls_between_the_ends(self, schedule):
        sde = sgm.VP(schedule, t0=0.0)
        log_snr = jax.jit(lambda t: sde.log_snr(t))(self.t)
        assert np.all(np.diff(log_snr) < 0)
        np.testing.assert_allclose(log_snr[jnp.asarray([0, -1])], [2 * np.log(1e3), -2 * np.log(1e2)], rtol=1e-4)

    def test_time_inverts_the_noise_level(self, schedule):
        sde = sgm.VP(schedule, t0=0.0)
        np.testing.assert_allclose(jax.jit(lambda t: sde.time(sde.level(t)))(self.t), self.t, atol=2e-5)

    def test_the_inverse_has_the_derivatives_of_a_root(self, schedule, float64):
        schedule = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), schedule)
        t = jnp.asarray(0.3)

        def round_trip(schedule, t):
            return schedule.inverse(schedule.integral(t))

        forwards = jax.jit(lambda t: jax.jvp(lambda t: round_trip(schedule, t), (t,), (jnp.ones_like(t),)))
        value, slope = forwards(t)
        assert float(value) == pytest.approx(0.3, abs=1e-8) and float(slope) == pytest.approx(1, abs=1e-6)
        for leaf in jax.tree.leaves(jax.jit(jax.grad(round_trip))(schedule, t)):
            np.testing.assert_allclose(leaf, 0, atol=1e-6)

    def test_a_chain_has_its_levels(self, schedule):
        sde = sgm.VP(schedule)
        times = np.linspace(sde.t0, sde.t1, 200)
        chain = sgm.DiscreteChain.at_times(sde, times)
        np.testing.assert_allclose(chain.log_snr(jnp.arange(1.0, 201.0)), sde.log_snr(times), rtol=1e-5, atol=1e-4)


def test_a_learned_schedule_begins_as_nearly_linear():
    sde, t = sgm.VP(LearnedLogSNR(), t0=0.0), jnp.linspace(0, 1, 101)
    straight = 2 * np.log(1e3) - t * 2 * np.log(1e5)
    np.testing.assert_allclose(jax.jit(lambda t: sde.log_snr(t))(t), straight, atol=0.35)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio_min": 2.0, "ratio_max": 1.0}, "LearnedLogSNR: got ratio_min=2.0, ratio_max=1.0; pass 0 < ratio_min"),
        ({"width": 0}, "LearnedLogSNR: width = 0; pass width >= 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LearnedLogSNR(**options)


def test_only_a_learned_schedule_is_trained():
    def with_array(sde):
        return eqx.tree_at(lambda sde: sde.t0, sde, jnp.asarray(1e-4))

    for sde in (sgm.VP(), with_array(sgm.VP()), sgm.DiscreteChain(np.full(10, 0.1)), sgm.VE()):
        assert not has_learned_part(sde)
    learned = learned_part(with_array(sgm.VP(LearnedLogSNR())))
    assert {leaf.shape for leaf in jax.tree.leaves(learned)} == {(2,), (32,)}


LOSS = Loss(LikelihoodWeighting(), UniformTime())


def closed_form(model, sde):
    """What a Gaussian's errors and end terms are on average, in nats; and its entropy."""
    variances, first, last = np.float64(model.eigenvalues), *(-0.5 * float(sde.log_snr(t)) for t in (sde.t0, sde.t1))

    def integral(level):
        return np.sum(level - 0.5 * np.log(variances + np.exp(2 * level)))

    cos2, dim = 1 / (1 + np.exp(2 * last)), len(variances)
    square = np.sum(variances) + np.sum(np.float64(model.mean) ** 2)
    prior = 0.5 * (cos2 * (square - dim) - dim * np.log1p(-cos2))
    ends = prior + dim * (first + 0.5 * np.log(2 * np.pi * np.e))
    return integral(last) - integral(first), ends, 0.5 * np.sum(np.log(2 * np.pi * np.e * variances))


@pytest.mark.parametrize("make", [LearnedLogSNR, bent])
def test_the_bound_is_that_of_the_closed_form(make):
    model, sde = gaussian(2), sgm.VP(make(1e-2, 3.0))
    x = model.sample(jr.key(0), 200_000)

    @eqx.filter_jit
    def found(sde, x):
        return LOSS.errors(sde, model, LOSS.perturb(sde, model, x, jr.key(1))), end_terms(sde, x)

    for values, expected in zip(found(sde, x), closed_form(model, sde)[:2], strict=True):
        stderr = 2 * float(values.std()) / len(x) ** 0.5
        assert stderr < 0.03 and abs(2 * float(values.mean()) - expected) < 4 * stderr + 1e-4


def test_the_bound_is_tight_where_the_ends_are_far_out():
    errors, ends, entropy = closed_form(gaussian(2), sgm.VP(bent(1e-3, 1e2), t0=0.0))
    assert entropy < errors + ends < entropy + 1e-3


def gradients(sde, model, x, key):
    """The mean bound, its gradient and that of the mean squared error, straight from their definitions; and ours."""
    learned = learned_part(sde)
    perturbed = LOSS.perturb(sde, model, x, key)

    def errors(levels):
        return LOSS.errors(sde, model, dataclasses.replace(perturbed, levels=levels))

    def of_process(learned):
        process = eqx.combine(learned, sde)
        values = errors(levels_at(process, LOSS.weighting, LOSS.times, perturbed.t))
        return jnp.mean(values + end_terms(process, x)), jnp.mean(values**2)

    value, _ = of_process(learned)
    bound, square = jax.jacrev(of_process)(learned)
    by_levels = jax.grad(lambda levels: jnp.mean(errors(levels)))(perturbed.levels)
    return value, bound, square, schedule_gradients(sde, perturbed.t, x, errors(perturbed.levels), by_levels)


@pytest.mark.slow
def test_training_has_the_bounds_gradient_for_its_ends_and_the_variances_inside():
    model, recipe = mixture(2), recipe_of(sgm.VP(bent()), UniformTime())
    x = model.sample(jr.key(0), 64)
    loss, _, trained = eqx.filter_jit(type(recipe).loss_and_gradients)(recipe, recipe.start(model), (x, None))
    key = jr.split(jr.fold_in(jr.key(0), 0))[1]
    value, bound, square, ours = eqx.filter_jit(gradients)(recipe.sde, model, x, key)
    assert float(loss) == pytest.approx(float(value), rel=1e-5)
    for name, by in (("ends", bound), ("heights", square), ("slopes", square), ("centres", square)):
        expected = getattr(by.schedule, name)
        for process in (ours, trained):
            slope = getattr(process.schedule, name)
            np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.slow
def test_the_bound_does_not_depend_on_the_interior():
    """The mean gradient of the bound is zero but for noise, that of the square is not."""
    keys = jr.split(jr.key(2), 40)
    sde, model = sgm.VP(bent(1e-2, 1e2)), mixture(2)
    slopes = jax.lax.map(lambda key: gradients(sde, model, model.sample(key, 500), jr.fold_in(key, 1)), keys)
    _, of_bound, of_square, _ = slopes

    def deviations(slopes):
        return [
            float(jnp.abs(values.mean(0) / (values.std(0, ddof=1) / len(keys) ** 0.5)).max())
            for values in (slopes.schedule.heights, slopes.schedule.slopes, slopes.schedule.centres)
        ]

    assert max(deviations(of_bound)) < 4.5 and min(deviations(of_square)) > 6


@pytest.mark.slow
def test_training_finds_the_schedule_of_least_variance():
    """For N(0, s^2 I) in many dimensions the error at log tan(theta) = l is s^2 / (s^2 + exp(2 l)) but for noise, so
    that the best t(l) is its integral from one end, over the whole."""
    std, ratios = 0.5, (1e-2, 1e1)
    sde, model = sgm.VP(LearnedLogSNR(*ratios), t0=0.0), Gaussian(jnp.zeros(64), std**2 * jnp.eye(64))
    learned, optimiser = learned_part(sde), optax.adam(optax.cosine_decay_schedule(2e-2, 600))

    @jax.jit
    def step(number, carry):
        learned, opt_state = carry
        process, key = eqx.combine(learned, sde), jr.fold_in(jr.key(5), number)
        x = std * jr.normal(key, (128, 64))
        perturbed = LOSS.perturb(process, model, x, jr.fold_in(key, 1))

        def mean(levels):
            errors = LOSS.errors(sde, model, dataclasses.replace(perturbed, levels=levels))
            return jnp.mean(errors), errors

        by_levels, errors = jax.grad(mean, has_aux=True)(perturbed.levels)
        slopes = schedule_gradients(process, perturbed.t, x, errors, by_levels)
        slopes = eqx.tree_at(lambda process: process.schedule.ends, slopes, jnp.zeros(2))
        updates, opt_state = optimiser.update(slopes, opt_state)
        return eqx.apply_updates(learned, updates), opt_state

    learned, _ = jax.lax.fori_loop(0, 600, step, (learned, optimiser.init(learned)))
    trained = eqx.combine(learned, sde)
    level = -0.5 * trained.log_snr(jnp.linspace(0, 1, 21))

    def integral(level):
        return level - 0.5 * np.log(std**2 + np.exp(2 * level))

    best = (integral(level) - integral(level[0])) / (integral(level[-1]) - integral(level[0]))
    np.testing.assert_allclose(best, np.linspace(0, 1, 21), atol=0.03)
    start = -0.5 * sde.log_snr(jnp.linspace(0, 1, 21))
    assert np.abs((integral(start) - integral(start[0])) / np.ptp(integral(start)) - np.linspace(0, 1, 21)).max() > 0.15


@pytest.mark.slow
def test_a_learned_schedule_is_trained_stored_and_loaded(tmp_path):
    begun, data = sgm.VP(LearnedLogSNR(1e-2)), Checkerboard()
    model = sgm.ScoreModel(sgm.nn.MLP((2,), 16, 1, key=jr.key(0)), data=data)
    how = {"steps": 60, "batch_size": 64, "loss": LOSS, "optimiser": Adam(1e-2, warmup=0), "progress": False}
    sde, _, history = sgm.train(begun, model, data, jr.key(1), run=tmp_path, **how)
    loaded, _ = sgm.training.load_run(tmp_path, begun, model)
    parts = (learned_part(process) for process in (begun, sde, loaded))
    for before, after, saved in zip(*map(jax.tree.leaves, parts), strict=True):
        assert not np.any(before == after)
        np.testing.assert_array_equal(saved, after)
    assert set(history) >= {"loss", "gradient_norm", "process_gradient_norm", "held_out_loss"}
    again, _, _ = sgm.train(begun, model, data, jr.key(1), **how)
    for first, second in zip(jax.tree.leaves(learned_part(sde)), jax.tree.leaves(learned_part(again)), strict=True):
        np.testing.assert_array_equal(first, second)


def recipe_of(sde, times):
    recipe = Recipe(sde, Loss(LikelihoodWeighting(), times), optax.adam(1e-3), jr.key(0), average_decay=0.9)
    return ScheduleRecipe(recipe, optax.adam(1e-3))


def test_a_loss_that_is_not_the_bound_is_refused():
    with pytest.raises(ValueError, match="LearnedLogSNR: it is trained on the bound at uniform times, but the loss is"):
        recipe_of(sgm.VP(LearnedLogSNR()), UniformLogSNR())


@pytest.mark.parametrize("sde", [sgm.SubVP(LearnedLogSNR()), sgm.VP(LearnedLogSNR(), t0=0.1)])
def test_a_process_whose_ends_are_not_the_schedules_is_refused(sde):
    with pytest.raises(ValueError, match=r"LearnedLogSNR: its ends are those of a VP on \[0, 1\], but the process is"):
        recipe_of(sde, UniformTime())
