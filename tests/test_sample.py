import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats
from truth import FOUR, PROCESSES, Shifted, gaussian, mixture, moments_agree, shared_range, slopes

import sgm
from sgm.model import Empirical, Gaussian
from sgm.solve import FixedSteps, LogSNRGrid, ThetaGrid, UniformGrid

MODEL = gaussian(2)
METHODS = {
    "EulerMaruyama": sgm.EulerMaruyama(500),
    "ReverseSDE": sgm.ReverseSDE(),
    "ReverseSDE fixed": sgm.ReverseSDE(stepping=FixedSteps(100)),
    "ProbabilityFlow": sgm.ProbabilityFlow(),
    "ProbabilityFlow fixed": sgm.ProbabilityFlow(diffrax.Heun(), FixedSteps(50, ThetaGrid())),
}
FEW = sgm.EulerMaruyama(20)
TIGHT = sgm.ProbabilityFlow(stepping=diffrax.PIDController(rtol=1e-6, atol=1e-6))


@pytest.mark.slow_except("VE")
@pytest.mark.parametrize("process", FOUR)
def test_euler_maruyama_draws_the_gaussian_under_every_process(process):
    x = sgm.sample(PROCESSES[process], MODEL, jr.key(0), 10_000)
    moments_agree(np.asarray(x), MODEL, 10_000)


@pytest.mark.slow_except("EulerMaruyama", "ReverseSDE fixed", "ProbabilityFlow")
@pytest.mark.parametrize("method", METHODS)
def test_every_method_draws_the_gaussian(method):
    x = sgm.sample(sgm.VP(), MODEL, jr.key(1), 5000, method=METHODS[method])
    moments_agree(np.asarray(x), MODEL, 5000)


@pytest.mark.slow_except("typed")
@pytest.mark.parametrize("kind", [jr.key, jr.PRNGKey], ids=["typed", "raw"])
def test_examples_may_have_their_keys(kind):
    """Those that one key is split into, so that any part of a batch can be drawn by itself."""
    keys = jr.split(kind(3), 5)
    whole = sgm.sample(sgm.VP(), MODEL, kind(3), 5, method=FEW)
    np.testing.assert_allclose(sgm.sample(sgm.VP(), MODEL, keys[1:4], method=FEW), whole[1:4], rtol=1e-6)
    with pytest.raises(ValueError, match="n = 4, but there are 5 keys; leave n out, or pass one key"):
        sgm.sample(sgm.VP(), MODEL, keys, 4, method=FEW)


@pytest.mark.slow_except("EulerMaruyama")
@pytest.mark.parametrize("method", ["EulerMaruyama", "ReverseSDE fixed", "ProbabilityFlow"])
def test_equal_points_are_drawn_equally_often(method):
    points = jnp.asarray([[1.0, 0.0], [-1.0, 0.3], [0.4, -1.0], [0.1, 0.9], [-0.6, -0.7]])
    chosen = sgm.EulerMaruyama(200) if method == "EulerMaruyama" else METHODS[method]

    def p_value(key):
        x = sgm.sample(sgm.VP(), Empirical(points), key, 400, method=chosen)
        nearest = jnp.argmin(jnp.sum((x[:, None] - points) ** 2, -1), -1)
        np.testing.assert_allclose(x, points[nearest], atol=0.01)
        return stats.chisquare(np.bincount(nearest, minlength=5)).pvalue

    p_values = [p_value(jr.key(seed)) for seed in range(20)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def weak_error(method):
    """Of the standard deviation, for centred data of one standard deviation and 100,000 paths."""
    model = Gaussian(jnp.zeros(50), 0.25 * jnp.eye(50))
    x = sgm.sample(sgm.VP(), model, jr.key(2), 2000, method=method, saveat=diffrax.SaveAt(t0=True))
    return abs(float(x.std() / model.marginal(sgm.VP(), sgm.VP().t0).eigenvalues[0] ** 0.5) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("make", [sgm.EulerMaruyama, lambda n: sgm.ReverseSDE(diffrax.Euler(), FixedSteps(n))])
def test_weak_order_of_euler_is_one(make):
    steps = np.asarray([20, 40, 80])
    errors = np.asarray([weak_error(make(int(n))) for n in steps])
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.85 < order < 1.25


@pytest.mark.slow
def test_shark_beats_euler_by_far():
    euler, shark = (weak_error(sgm.ReverseSDE(solver, FixedSteps(40))) for solver in (diffrax.Euler(), diffrax.ShARK()))
    assert shark < 0.2 * euler


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "order"), [(diffrax.Euler(), 1), (diffrax.Heun(), 2), (diffrax.Bosh3(), 3)])
def test_order_of_the_flow(float64, solver, order):
    sde, model = sgm.VP(), mixture(2)
    steps = np.asarray([40, 80, 160])
    saveat = diffrax.SaveAt(t0=True)
    tight = sgm.ProbabilityFlow(diffrax.Dopri8(), diffrax.PIDController(rtol=1e-11, atol=1e-11))
    truth = sgm.sample(sde, model, jr.key(3), 20, method=tight, saveat=saveat)
    errors = [
        float(jnp.abs(sgm.sample(sde, model, jr.key(3), 20, method=method, saveat=saveat) - truth).mean())
        for method in (sgm.ProbabilityFlow(solver, FixedSteps(int(n))) for n in steps)
    ]
    measured = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(measured - order) < 0.35


@pytest.mark.slow
def test_the_flow_is_the_same_under_every_process():
    samples = [sgm.sample(shared_range(name), mixture(2), jr.key(4), 50, method=TIGHT) for name in PROCESSES]
    np.testing.assert_allclose(samples, np.tile(samples[0], (len(samples), 1, 1)), atol=2e-4)


@pytest.mark.slow
def test_the_universal_sde_is_the_same_under_every_process():
    method = sgm.ReverseSDE(stepping=FixedSteps(100, LogSNRGrid()))
    samples = [sgm.sample(shared_range(name), mixture(2), jr.key(4), 50, method=method) for name in PROCESSES]
    np.testing.assert_allclose(samples, np.tile(samples[0], (len(samples), 1, 1)), atol=2e-3)


@pytest.mark.slow_except("EulerMaruyama-VP")
@pytest.mark.parametrize("process", FOUR)
@pytest.mark.parametrize("method", ["EulerMaruyama", "ReverseSDE fixed", "ProbabilityFlow"])
def test_saved_paths_speak_the_time_of_the_process(process, method):
    sde = PROCESSES[process]
    ts = ThetaGrid().times(sde, 5)
    saved = diffrax.SubSaveAt(ts=ts, fn=lambda t, x, args: (t, x))
    saveat = diffrax.SaveAt(subs=[diffrax.SubSaveAt(t0=True), saved])
    end, (times, x) = sgm.sample(sde, MODEL, jr.key(5), 2000, method=METHODS[method], saveat=saveat)
    assert x.shape == (2000, 6, 2)
    np.testing.assert_allclose(end[:, 0], x[:, -1], atol=1e-5 * float(sde.rho(sde.t0)))
    np.testing.assert_allclose(times[0], ts, rtol=1e-3, atol=1e-5)
    for index, t in enumerate(ts):
        if index > 0:  # At t1 the path starts from the prior instead.
            std = np.sqrt(MODEL.marginal(sde, t).eigenvalues)
            turned = np.asarray(x[:, index]) @ np.asarray(MODEL.eigenvectors)
            np.testing.assert_allclose(turned.std(0), std, rtol=0.1)


def test_a_sample_is_the_denoised_end_of_its_path():
    sde = sgm.VP()
    end = sgm.sample(sde, MODEL, jr.key(6), 3, method=FEW, saveat=diffrax.SaveAt(t0=True))[:, 0]
    denoised = jax.vmap(lambda x: MODEL.denoise(sde, sde.t0, x))(end)
    np.testing.assert_allclose(sgm.sample(sde, MODEL, jr.key(6), 3, method=FEW), denoised, atol=1e-6)


def test_one_example_or_many():
    assert sgm.sample(sgm.VP(), MODEL, jr.key(7), method=FEW).shape == (2,)
    many = sgm.sample(sgm.VP(), MODEL, jr.key(7), 3, method=FEW)
    assert many.shape == (3, 2)
    alone = sgm.sample(sgm.VP(), MODEL, jr.split(jr.key(7), 3)[1], method=FEW)
    np.testing.assert_allclose(alone, many[1], rtol=1e-5)


@pytest.mark.slow_except("EulerMaruyama")
@pytest.mark.parametrize("method", ["EulerMaruyama", "ReverseSDE fixed", "ProbabilityFlow"])
def test_gradients_with_respect_to_the_model_agree_with_finite_differences(float64, method):
    chosen = {
        "EulerMaruyama": sgm.EulerMaruyama(20),
        # Tight, so that the choice of steps is smooth in the parameters to the digits compared.
        "ProbabilityFlow": sgm.ProbabilityFlow(stepping=diffrax.PIDController(rtol=1e-10, atol=1e-10)),
    }.get(method, METHODS[method])
    model, direction = mixture(2), jax.tree.map(jnp.cos, mixture(2))

    def mean_square(model):
        return jnp.mean(sgm.sample(sgm.VP(), model, jr.key(8), 4, method=chosen) ** 2)

    by_gradient, by_differences = slopes(mean_square, model, direction)
    assert by_gradient == pytest.approx(by_differences, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "adjoint", [diffrax.DirectAdjoint(), diffrax.ForwardMode()], ids=lambda part: type(part).__name__
)
def test_every_adjoint_gives_the_same_gradient(adjoint):
    def mean_square(scale, adjoint):
        model = Gaussian(MODEL.mean * scale, jnp.eye(2))
        return jnp.mean(sgm.sample(sgm.VP(), model, jr.key(9), 4, method=FEW, adjoint=adjoint) ** 2)

    by_default = jax.grad(mean_square)(1.0, None)
    derivative = jax.jacfwd if isinstance(adjoint, diffrax.ForwardMode) else jax.grad
    np.testing.assert_allclose(derivative(mean_square)(1.0, adjoint), float(by_default), rtol=1e-5)


@pytest.mark.slow
def test_a_backward_solve_gives_the_gradient_of_the_adaptive_flow_alone():
    def mean_square(scale, method, adjoint=None):
        model = Gaussian(MODEL.mean * scale, jnp.eye(2))
        return jnp.mean(sgm.sample(sgm.VP(), model, jr.key(9), 4, method=method, adjoint=adjoint) ** 2)

    backsolve, adaptive = diffrax.BacksolveAdjoint(), sgm.ProbabilityFlow()
    expected = jax.grad(mean_square)(1.0, adaptive)
    np.testing.assert_allclose(jax.grad(mean_square)(1.0, adaptive, backsolve), expected, rtol=2e-3)
    fixed = sgm.ProbabilityFlow(diffrax.Heun(), sgm.solve.FixedSteps(10, sgm.solve.ThetaGrid()))
    for method in (fixed, sgm.EulerMaruyama(10), sgm.DDIM(10), sgm.ReverseSDE()):
        with pytest.raises(ValueError, match=r"sample: BacksolveAdjoint cannot take .* pass diffrax\.Recursive"):
            sgm.sample(sgm.VP(), MODEL, jr.key(0), 4, method=method, adjoint=backsolve)


def test_conditions_are_one_for_all_or_one_each():
    params = jnp.asarray([[1.0, 2.0], [3.0, 4.0], [-1.0, 0.0]])
    method = sgm.EulerMaruyama(100)
    each = sgm.sample(sgm.VP(), Shifted(0.01), jr.key(0), 3, cond=sgm.Condition(params=params), method=method)
    np.testing.assert_allclose(each, params, atol=0.1)
    same = sgm.sample(sgm.VP(), Shifted(0.01), jr.key(0), 3, cond=sgm.Condition(params=params[0]), method=method)
    np.testing.assert_allclose(same, jnp.tile(params[0], (3, 1)), atol=0.1)
    with pytest.raises(
        ValueError, match=r"sample: the parts of cond have batch axes \[\(3,\)\], but the examples have \(4,\)"
    ):
        sgm.sample(sgm.VP(), Shifted(0.01), jr.key(0), 4, cond=sgm.Condition(params=params), method=method)


def test_progress_is_shown(capfd):
    method = sgm.EulerMaruyama(10)
    sgm.sample(sgm.VP(), MODEL, jr.key(0), 2, method=method, progress=diffrax.TextProgressMeter()).block_until_ready()
    jax.effects_barrier()
    assert "100.00%" in capfd.readouterr().out


def test_a_second_call_does_not_trace_again():
    traces = []

    class Counting(sgm.model.AbstractModel):
        shape: tuple[int, ...] = (2,)

        def predict(self, level, u, cond=None, key=None):
            traces.append(1)
            return MODEL.predict(level, u)

    model, method = Counting(), sgm.EulerMaruyama(5)
    sgm.sample(sgm.VP(), model, jr.key(0), 2, method=method)
    first = len(traces)
    sgm.sample(sgm.VP(), model, jr.key(1), 2, method=sgm.EulerMaruyama(5))
    assert first > 0 and len(traces) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "sample: n = 0; pass n >= 1"),
        ({"saveat": diffrax.SaveAt(dense=True)}, "sample: saveat asks for dense output or internal states"),
        (
            {"saveat": diffrax.SaveAt(t1=True)},
            "sample: saveat asks for t1=True, which is pure noise here, .* SaveAt.t0=True",
        ),
        ({"saveat": diffrax.SaveAt(ts=jnp.asarray([1.0, jnp.nan]))}, r"sample: saveat: t = nan lies outside"),
        (
            {"saveat": diffrax.SaveAt(ts=jnp.asarray([0.1, 0.5]))},
            "the times of saveat go from 0.1.* pass decreasing ones",
        ),
        ({"saveat": diffrax.SaveAt(ts=jnp.asarray([1.0, 0.5, -0.1]))}, r"sample: saveat: t = -0.1\S* lies outside"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sgm.sample(sgm.VP(), MODEL, jr.key(0), **options)


@pytest.mark.usefixtures("types_unchecked")
def test_solvers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="ReverseSDE: Tsit5 solves no SDEs; pass a solver that does"):
        sgm.ReverseSDE(diffrax.Tsit5())
    with pytest.raises(TypeError, match=r"ReverseSDE: solver = None; pass an instance such as diffrax\.ShARK\(\)"):
        sgm.ReverseSDE(None)
    with pytest.raises(ValueError, match=r"ReverseSDE: HalfSolver divides its steps, .* pass the solver it wraps"):
        sgm.ReverseSDE(diffrax.HalfSolver(diffrax.Euler()), FixedSteps(10))


def test_counts_of_numpy_are_counts():
    assert sgm.sample(sgm.VP(), MODEL, jr.key(0), np.int64(3), method=FEW).shape == (3, 2)


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match="EulerMaruyama: steps = 0; pass steps >= 1"):
        sgm.EulerMaruyama(0)


@pytest.mark.slow
def test_uniform_steps_overshoot_where_log_snr_steps_do_not():
    """Why the default grid is what it is; the whole table is in docs/sampling.md."""

    def reach(grid):
        saveat = diffrax.SaveAt(steps=True, fn=lambda t, x, args: x / sgm.Rectified().rho(t))
        method = sgm.EulerMaruyama(100, grid)
        paths, _ = sgm.sample(
            sgm.Rectified(), Gaussian(jnp.zeros(2), jnp.eye(2)), jr.key(0), 1000, method=method, saveat=saveat
        )
        return float(paths.std(axis=(0, 2)).max())

    assert reach(UniformGrid()) > 5
    assert reach(LogSNRGrid()) < 1.2
