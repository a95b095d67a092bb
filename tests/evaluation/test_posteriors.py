"""The diagnostics of posteriors, by a model whose posterior is known in closed form."""

import dataclasses
import re
import warnings
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from classes import forget
from scipy import stats

import sgm
from sgm.data import AbstractSimulator
from sgm.data.simulated import AbstractSimulated
from sgm.evaluation import (
    C2ST,
    Calibration,
    ExpectedCoverage,
    LocalC2ST,
    PosteriorPredictive,
    local_c2st,
    predictive_tails,
    rank_ecdf,
)
from sgm.experiment import Experiment
from sgm.flags import from_flags
from sgm.model import AbstractModel, Gaussian
from sgm.serial import from_json, to_json

_to_jax = partial(jnp.asarray, dtype=jnp.float32)
NOISE = 0.5
BIAS = 0.45
STD = (NOISE**2 / (1 + NOISE**2)) ** 0.5


@dataclass(frozen=True)
class Noisy(AbstractSimulated):
    """theta ~ N(0, I), in the plane or on a line, and x = theta + noise is its condition."""

    shape: tuple[int, ...] = (2,)

    @property
    def conditioning(self):
        return sgm.nn.Conditioning(params=self.shape[0])

    def simulate(self, key, n):
        theta, noise = jr.normal(key, (2, n, *self.shape))
        return theta, {"params": theta + NOISE * noise}


class _AddNoise(AbstractSimulator):
    """The simulator of these data. Its name is private, so that no other test's flags name it."""

    noise: float = NOISE

    def __call__(self, key, theta):
        return theta + self.noise * jr.normal(key, theta.shape)


class _First(AbstractSimulator):
    """A simulator of another shape than the data's."""

    def __call__(self, key, theta):
        return theta[:1]


class Posterior(AbstractModel):
    """N(x / (1 + noise^2) + bias, (scale std)^2 I), which is exact for bias 0 and scale 1."""

    scale: float = 1.0
    bias: float = 0.0
    shape: tuple[int, ...] = (2,)

    def predict(self, level, u, cond=None, key=None):
        mean = cond.params / (1 + NOISE**2) + self.bias
        return Gaussian(mean, (self.scale * STD) ** 2 * jnp.eye(self.shape[0])).predict(level, u)


MODELS = {
    "exact": Posterior(),
    "narrow": Posterior(scale=0.5),
    "wide": Posterior(scale=2.0),
    "biased": Posterior(bias=BIAS),
}
WRONG = ("narrow", "wide", "biased")
DATA = Noisy()
SAMPLER = sgm.DPMSolverPP(50)  # of 20 steps the standard deviation is 2% too large
HOW = {"n": 400, "batch_size": 200, "sampler": SAMPLER, "progress": False}


@pytest.fixture(scope="module")
def reports():
    """The report of a metric on a model, each made once."""
    made = {}

    def report(name, metric, shape=(2,), n=400):
        key = name, repr(metric), shape, n
        if key not in made:
            how = {"n": n, "batch_size": 200, "sampler": SAMPLER, "progress": False}
            model = dataclasses.replace(MODELS[name], shape=shape)
            made[key] = sgm.evaluate(sgm.VP(), model, Noisy(shape), [metric], jr.key(0), **how)
        return made[key]

    return report


class TestC2ST:
    def test_an_exact_posterior_cannot_be_told_from_the_records(self, reports):
        assert reports("exact", C2ST(), (1,))["c2st"].value == pytest.approx(0.5, abs=3 * 0.5 / 400**0.5)

    @pytest.mark.parametrize("name", WRONG)
    def test_a_wrong_posterior_is_told_from_the_records(self, reports, name):
        """Scales 1 and 2 have equal densities at |z| = (8 log(2) / 3)^1/2 of the smaller one."""
        equal, error = (8 * np.log(2) / 3) ** 0.5, 0.5 / 400**0.5
        best = (1 + 2 * stats.norm.cdf(equal) - 2 * stats.norm.cdf(equal / 2)) / 2
        best = stats.norm.cdf(BIAS / STD / 2) if name == "biased" else best
        assert 0.5 + 3 * error < reports(name, C2ST(), (1,))["c2st"].value < best + 3 * error


class TestCalibration:
    def test_an_exact_posterior_is_calibrated(self, reports):
        report = reports("exact", Calibration(63), n=1000)
        assert report["calibration_outside"].value == 0
        assert min(report["calibration_p_0"].value, report["calibration_p_1"].value) > 0.05
        assert "inside" in report["calibration_p_0"].note
        assert stats.chisquare(np.bincount(report.columns["calibration_rank"][:, 0].astype(int) // 8)).pvalue > 1e-3

    @pytest.mark.parametrize("name", WRONG)
    def test_a_wrong_posterior_is_not(self, reports, name):
        report = reports(name, Calibration(63))
        assert report["calibration_outside"].value == 2
        assert report["calibration_p_0"].value < 1e-3 and "outside" in report["calibration_p_1"].note

    def test_ranks_of_a_wrong_scale_have_their_closed_form(self, reports):
        """A record z ~ N(0, 1) has the rank Bin(63, Phi(z / scale)), so that its CDF is a mean over z."""
        z = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
        for name, scale in (("narrow", 0.5), ("wide", 2.0)):
            ranks = reports(name, Calibration(63)).columns["calibration_rank"]
            truth = stats.binom.cdf(np.arange(63), 63, stats.norm.cdf(z / scale)[:, None]).mean(0)
            for column in ranks.T:
                assert np.abs(rank_ecdf(column, 63) - truth).max() < 1.63 / 400**0.5  # the quantile 0.99 of Kolmogorov

    def test_examples_that_are_no_vectors_are_refused(self):
        images = sgm.data.Digits()
        with pytest.raises(ValueError, match=r"examples have the shape \(8, 8, 1\); pass data whose examples are vec"):
            sgm.evaluate(sgm.VP(), Posterior(), images, [Calibration()], jr.key(0), progress=False)


class TestExpectedCoverage:
    def test_an_exact_posterior_covers_as_much_as_it_says(self, reports):
        report = reports("exact", ExpectedCoverage(63))
        assert report["coverage_p"].value > 0.05 and "inside" in report["coverage_p"].note
        for level in (0.25, 0.5, 0.75, 0.9):
            error = (level * (1 - level) / 400) ** 0.5
            assert report[f"coverage_{level:g}"].value == pytest.approx(level, abs=3 * error)

    def test_the_coverage_has_no_bias_from_few_draws(self):
        """Of uniform ranks among 4 draws the mean is the credibility itself, on no step of the ranks."""
        metric = ExpectedCoverage(4, credibilities=(0.3,))
        rows = metric.rows(None, {"closer_draws": np.tile(np.arange(5, dtype=np.float32), 10)})
        assert rows[0].value == pytest.approx(0.3)

    @pytest.mark.parametrize("name", WRONG)
    def test_a_wrong_posterior_does_not(self, reports, name):
        report = reports(name, ExpectedCoverage(63))
        assert report["coverage_p"].value < 0.05 and "outside" in report["coverage_p"].note

    def test_a_narrow_posterior_covers_too_little_of_the_middle(self, reports):
        """Its regions miss records on both sides: fewer in those of 0.9, and more in those of 0.25."""
        narrow, wide = (reports(name, ExpectedCoverage(63)) for name in ("narrow", "wide"))
        error_25, error_90 = ((level * (1 - level) / 400) ** 0.5 for level in (0.25, 0.9))
        assert wide["coverage_0.25"].value < 0.25 - 2 * error_25 < 0.25 + 2 * error_25 < narrow["coverage_0.25"].value
        assert narrow["coverage_0.9"].value < 0.9 - 3 * error_90 < 0.9 + 3 * error_90 < wide["coverage_0.9"].value

    def test_wrong_credibilities_are_named(self):
        with pytest.raises(ValueError, match=r"credibilities have 1\.0; pass numbers between 0 and 1"):
            ExpectedCoverage(credibilities=(0.5, 1.0))

    @pytest.mark.usefixtures("types_unchecked")
    def test_credibilities_are_any_sequence(self):
        for values in ([0.25, 0.5], np.asarray([0.25, 0.5]), jnp.asarray([0.25, 0.5])):
            assert ExpectedCoverage(credibilities=values) == ExpectedCoverage(credibilities=(0.25, 0.5))
        with pytest.raises(TypeError, match=r"ExpectedCoverage: credibilities = 0\.5; pass a tuple .* \(0\.5, 0\.9\)"):
            ExpectedCoverage(credibilities=0.5)


class TestLocalC2ST:
    METRIC = LocalC2ST(observation=(0.4,), nulls=19)

    def test_an_exact_posterior_passes(self, reports):
        report = reports("exact", self.METRIC, (1,))
        assert report["local_c2st_p"].value > 0.05
        # As the note says, the statistic is of the size of those of permuted labels, not 0.
        said = re.search(r"; ([\d.]+) of permuted labels, as of an exact model$", report["local_c2st"].note)
        assert float(said[1]) / 5 < report["local_c2st"].value < 5 * float(said[1])

    @pytest.mark.parametrize("name", WRONG)
    def test_a_wrong_posterior_fails(self, reports, name):
        """With 19 nulls the p-value is 1 / 20 at least."""
        report = reports(name, self.METRIC, (1,))
        assert report["local_c2st_p"].value == pytest.approx(0.05)
        assert report["local_c2st"].value > 5 * reports("exact", self.METRIC, (1,))["local_c2st"].value

    def test_draws_are_those_at_the_observation(self, reports):
        drawn = reports("narrow", self.METRIC, (1,)).columns["local_observed_draws"]
        assert drawn.mean() == pytest.approx(0.4 / (1 + NOISE**2), abs=4 * 0.5 * STD / 20)
        assert drawn.std() == pytest.approx(0.5 * STD, rel=4 / 800**0.5)

    def test_a_record_is_an_observation(self, reports):
        drawn = reports("exact", LocalC2ST(7, nulls=1), (1,)).columns["local_observed_draws"]
        x = Noisy((1,)).rows("test", 7, 8)[1]["params"][0, 0]
        assert drawn.mean() == pytest.approx(x / (1 + NOISE**2), abs=4 * STD / 20)

    @pytest.mark.slow
    def test_only_the_place_where_the_posterior_is_wrong_fails(self):
        """theta ~ N(0, 1) whatever x, but the model is shifted where x > 0."""
        rng = np.random.default_rng(0)
        theta, draws, seen = rng.normal(size=(3, 600, 1))
        x = rng.uniform(-1, 1, (600, 1))
        test = partial(local_c2st, theta, draws + 1.5 * (x > 0), x, nulls=19)
        assert test(seen + 1.5, np.asarray([0.6])).p_value == pytest.approx(0.05)
        assert test(seen, np.asarray([-0.6])).p_value > 0.05

    def test_probabilities_are_those_of_two_gaussians(self):
        """A record at theta has the probability 1 / (1 + exp(d theta - d^2 / 2)) for draws shifted by d."""
        theta, draws, x = np.random.default_rng(0).normal(size=(3, 3000, 1))
        asked = np.linspace(-1, 2.5, 50)[:, None]
        found = local_c2st(theta, draws + 1.5, x, asked, np.zeros(1), nulls=0)
        truth = 1 / (1 + np.exp(1.5 * asked[:, 0] - 1.125))
        np.testing.assert_allclose(found.probabilities, truth, atol=0.1)
        assert np.isnan(found.p_value)
        assert found.statistic == pytest.approx(np.mean((found.probabilities - 0.5) ** 2))

    @pytest.mark.parametrize(
        ("metric", "message"),
        [
            (LocalC2ST(20_000), "observation = 20000, but the split 'test' has 10000 records"),
            (LocalC2ST((0.1,)), r"observation has 1 numbers, but a condition of the data is \{'params': 2\}"),
        ],
    )
    def test_wrong_observations_are_named(self, metric, message):
        with pytest.raises(ValueError, match=message):
            sgm.evaluate(sgm.VP(), Posterior(), DATA, [metric], jr.key(0), progress=False)
        with pytest.raises(ValueError, match="LocalC2ST: observation = -1"):
            LocalC2ST(-1)

    @pytest.mark.usefixtures("types_unchecked")
    def test_an_observation_is_a_number_of_a_record_or_any_vector(self):
        for values in ([0.25, 0.5], np.asarray([0.25, 0.5]), jnp.asarray([0.25, 0.5])):
            assert LocalC2ST(values) == LocalC2ST((0.25, 0.5))
        assert LocalC2ST(np.int64(7)) == LocalC2ST(jnp.asarray(7)) == LocalC2ST(7)
        with pytest.raises(
            TypeError, match=r"LocalC2ST: observation = 0\.3; pass a tuple .*, or the number of a record"
        ):
            LocalC2ST(0.3)

    def test_arrays_of_jax_are_taken(self):
        parts = np.random.default_rng(0).normal(size=(4, 30, 2)).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of float64 that JAX does not have
            found, same = (local_c2st(*map(to, parts), to(np.zeros(2)), nulls=1) for to in (np.asarray, _to_jax))
        assert same.statistic == pytest.approx(found.statistic, rel=1e-3)

    @pytest.mark.usefixtures("types_unchecked")
    def test_wrong_arrays_are_named(self):
        good = [np.zeros((30, 2)), np.zeros((30, 2)), np.zeros((30, 1)), np.zeros((5, 2)), np.zeros(1)]
        with pytest.raises(ValueError, match="with 29 conditions; pass a draw and a condition for each record"):
            local_c2st(*good[:2], good[2][:29], *good[3:])
        with pytest.raises(ValueError, match="there are 9 records; pass 20 or more"):
            local_c2st(*(part[:9] for part in good[:3]), *good[3:])
        with pytest.raises(
            ValueError, match=r"conditions has shape \(30,\); pass rows .* np.reshape\(conditions, \(-1, 1"
        ):
            local_c2st(*good[:2], good[2][:, 0], *good[3:])
        with pytest.raises(ValueError, match=r"observation has shape \(2,\), but a condition has \(1,\)"):
            local_c2st(*good[:4], np.zeros(2))


class TestPosteriorPredictive:
    METRIC = PosteriorPredictive(_AddNoise(), draws=200)

    @pytest.mark.parametrize("name", MODELS)
    def test_tails_have_their_closed_form(self, reports, name):
        """A simulation is N(x / (1 + noise^2) + bias, (scale std)^2 + noise^2)."""
        report, model = reports(name, self.METRIC), MODELS[name]
        x = DATA.rows("test", 0, 400)[1]["params"]
        spread = ((model.scale * STD) ** 2 + NOISE**2) ** 0.5
        z = (x - x / (1 + NOISE**2) - model.bias) / spread
        truth = 2 * stats.norm.sf(np.abs(z))
        np.testing.assert_allclose(report.columns["predictive_tail"], truth, atol=5 * 2 * (0.25 / 200) ** 0.5 + 0.01)
        assert report["predictive_tail"].value == pytest.approx(truth.mean(), abs=0.02)
        np.testing.assert_array_equal(report.columns["observed"], x)
        median = report.columns["predictive_0.5"]
        np.testing.assert_allclose(median, x / (1 + NOISE**2) + model.bias, atol=5 * 1.2533 * spread / 200**0.5 + 0.02)
        width = report.columns["predictive_0.95"] - report.columns["predictive_0.05"]
        assert width.mean() == pytest.approx(2 * 1.645 * spread, rel=0.03)

    def test_a_right_model_has_few_small_tails_and_a_biased_one_many(self):
        """With a bias of 1.5 it is P(|z + 1.5 / spread| > 1.96) for the z of the closed form, more than 0.5."""
        how = {"n": 200, "batch_size": 200, "sampler": SAMPLER, "progress": False}
        right, biased = (
            sgm.evaluate(sgm.VP(), Posterior(bias=bias), DATA, [self.METRIC], jr.key(0), **how) for bias in (0.0, 1.5)
        )
        assert right["predictive_small"].value < 0.05 and biased["predictive_small"].value > 0.5
        assert biased["predictive_small_worst"].value >= biased["predictive_small"].value

    def test_a_wrong_simulator_is_seen(self, reports):
        report = reports("exact", PosteriorPredictive(_AddNoise(0.05), draws=200))
        assert reports("exact", self.METRIC)["predictive_small"].value < 0.05
        assert report["predictive_tail"].value < 0.95 * reports("exact", self.METRIC)["predictive_tail"].value

    def test_tails_are_counted_with_the_observed_value(self):
        simulated = np.arange(9.0, dtype=np.float32)[:, None] + np.asarray([0.0, -100.0, np.nan], np.float32)
        found = predictive_tails(simulated, np.asarray([1.5, 0.0, 0.0], np.float32))
        np.testing.assert_allclose(found, [2 * 3 / 10, 2 * 1 / 10, np.nan])

    def test_a_number_is_an_observation_of_one_entry(self):
        metric = PosteriorPredictive(lambda key, theta: theta[0] + NOISE * jr.normal(key), draws=9)
        how = {"n": 4, "sampler": SAMPLER, "progress": False}
        report = sgm.evaluate(sgm.VP(), Posterior(shape=(1,)), Noisy((1,)), [metric], jr.key(0), **how)
        assert report.columns["predictive_tail"].shape == (4, 1) and report["predictive_tail"].value > 0

    @pytest.mark.parametrize(
        ("simulator", "message"),
        [
            (
                lambda key, theta: np.asarray(theta),
                "simulator looks at the values .* with jax.numpy and jax.random, or call what it does by",
            ),
            (
                lambda key, theta: (theta, theta),
                r"what the simulator gives is a tuple; let it give one .* jnp.stack\(x\)",
            ),
            (
                lambda theta: theta,
                r"the simulator does not take its arguments .* write it as simulator\(key, theta\)",
            ),
            (_AddNoise, r"is the class _AddNoise; pass a function simulate\(key, theta\), or an instance of a subcl"),
            (0.5, r"simulator = 0\.5; pass a function simulate\(key, theta\)"),
        ],
    )
    @pytest.mark.usefixtures("types_unchecked")
    def test_what_is_no_simulator_is_named_before_a_draw(self, simulator, message):
        with pytest.raises(TypeError, match=f"PosteriorPredictive: .*{message}"):
            metric = PosteriorPredictive(simulator)
            sgm.evaluate(sgm.VP(), Posterior(), DATA, [metric], jr.key(0), n=4, sampler=None, progress=False)

    def test_a_simulator_that_draws_by_numpy_is_refused_before_a_draw(self):
        def frozen(key, theta):
            return theta + np.random.randn(2).astype(np.float32)  # noqa: NPY002

        with pytest.raises(ValueError, match="PosteriorPredictive: the simulator draws other numbers when it is trac"):
            metric = PosteriorPredictive(frozen)
            sgm.evaluate(sgm.VP(), Posterior(), DATA, [metric], jr.key(0), n=4, progress=False)

    def test_a_simulator_is_given_what_simulations_give_it(self):
        """Of a prior of numbers as well."""

        class Unit:
            def sample(self, key, n):
                return jr.uniform(key, (n,))

        shapes = set()

        def simulator(key, theta):
            shapes.add((theta.shape, str(theta.dtype)))
            return theta[0] + NOISE * jr.normal(key)

        data = sgm.data.Simulations(simulator, Unit())
        data.batch(0, 3, seed=0)
        how = {"n": 4, "sampler": SAMPLER, "progress": False}
        model = Posterior(shape=(1,))
        report = sgm.evaluate(sgm.VP(), model, data, [PosteriorPredictive(simulator, 9)], jr.key(0), **how)
        assert report.columns["predictive_tail"].shape == (4, 1)
        assert shapes == {((1,), "float32")}

    def test_what_cannot_be_compared_is_named(self):
        with pytest.raises(
            ValueError, match=r"gives observations of shape \(1,\), but a condition of the data has \(2,"
        ):
            sgm.evaluate(sgm.VP(), Posterior(), DATA, [PosteriorPredictive(_First())], jr.key(0), n=4, progress=False)
        with pytest.raises(ValueError, match=r"has the parts \[\]; pass data whose condition is what was observed"):
            sgm.evaluate(sgm.VP(), Posterior(), sgm.data.Moons(), [self.METRIC], jr.key(0), n=4, progress=False)


@dataclass(frozen=True)
class Positive(Noisy):
    """theta = |N(0, 1)|, whose posterior is the same Gaussian, cut off below 0."""

    def simulate(self, key, n):
        theta, noise = jr.normal(key, (2, n, *self.shape))
        return jnp.abs(theta), {"params": jnp.abs(theta) + NOISE * noise}


class TestSupport:
    def test_a_posterior_that_leaks_is_right_within_the_support(self):
        """The model leaks at small x. Its draws within the support are exact."""
        run = partial(sgm.evaluate, sgm.VP(), Posterior(shape=(1,)), Positive((1,)), key=jr.key(0), **HOW)
        leaky, right = (run(metrics=[Calibration(63)], support=support) for support in (None, is_positive))
        assert leaky["calibration_p_0"].value < 1e-3 and right["calibration_p_0"].value > 0.05

    def test_draws_have_the_distribution_that_is_cut_off(self):
        """At x = 0, half of a Gaussian: its mean is (2 / pi)^1/2 standard deviations."""
        metrics = [LocalC2ST((0.0,), nulls=1)]
        report = sgm.evaluate(
            sgm.VP(), Posterior(shape=(1,)), Positive((1,)), metrics, jr.key(0), support=is_positive, **HOW
        )
        drawn = report.columns["local_observed_draws"][:, 0]
        assert drawn.min() > 0
        assert stats.kstest(drawn, stats.halfnorm(scale=STD).cdf).pvalue > 0.01
        given = report.columns["local_conditions"][:, 0] / (1 + NOISE**2)
        ranks = stats.truncnorm(-given / STD, np.inf, given, STD).cdf(report.columns["local_draws"][:, 0])
        assert stats.kstest(ranks, "uniform").pvalue > 0.01

    def test_draws_that_are_not_finite_are_left_to_the_metric(self):
        report = sgm.evaluate(
            sgm.VP(),
            Posterior(jnp.nan, shape=(1,)),
            Positive((1,)),
            [C2ST()],
            jr.key(0),
            support=is_positive,
            **HOW,
        )
        assert np.isnan(report["c2st"].value) and "400 of 400 draws are not finite" in report["c2st"].note

    @pytest.mark.usefixtures("types_unchecked")
    def test_what_is_no_support_of_the_model_is_named(self):
        run = partial(sgm.evaluate, sgm.VP(), Posterior(), DATA, [Calibration(3)], jr.key(0), n=4, progress=False)
        with pytest.raises(
            ValueError, match=r"evaluate: 12 of 12 samples are not found within .* in 100 attempts; pass"
        ):
            run(support=lambda x: x[0] > 1e6, sampler=sgm.DPMSolverPP(2))
        with pytest.raises(ValueError, match=r"evaluate: support gives bool of shape \(2,\) for one example"):
            run(support=lambda x: x > 0, sampler=None)
        with pytest.raises(TypeError, match="evaluate: support = 3"):
            run(support=3, sampler=None)


def is_positive(x):
    return jnp.all(x > 0)


ALL = [C2ST(folds=2), Calibration(9), ExpectedCoverage(9), LocalC2ST(3, nulls=1), PosteriorPredictive(_AddNoise(), 9)]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: type(metric).__name__)
def test_an_evaluation_that_goes_on_has_the_same_report_and_figures(metric, tmp_path):
    how = {"n": 50, "batch_size": 20, "sampler": sgm.DPMSolverPP(4), "progress": False}
    run = partial(sgm.evaluate, sgm.VP(), Posterior(), DATA, [metric], jr.key(0), **how)
    whole = run(folder=tmp_path)
    sorted(tmp_path.glob("*/*.parquet"))[1].unlink()
    again = run(folder=tmp_path)
    assert again.rows == whole.rows
    for name, values in whole.columns.items():
        assert len(values) == 50
        np.testing.assert_array_equal(again.columns[name], values)
    assert (
        list(again.figures())
        == {
            "C2ST": ["c2st"],
            "Calibration": ["calibration"],
            "ExpectedCoverage": ["coverage"],
            "LocalC2ST": ["local"],
            "PosteriorPredictive": ["predictive"],
        }[type(metric).__name__]
    )


@pytest.mark.parametrize("metric", ALL[:4], ids=lambda metric: type(metric).__name__)
def test_draws_that_are_not_finite_are_left_out_and_said(metric):
    columns = sgm.evaluate(
        sgm.VP(), Posterior(), DATA, [metric], jr.key(0), n=60, sampler=sgm.DPMSolverPP(4), progress=False
    )
    name = {"C2ST": "c2st_draws", "Calibration": "calibration_rank", "ExpectedCoverage": "closer_draws"}.get(
        type(metric).__name__, "local_observed_draws"
    )
    context, ((_, found),) = columns.context, columns.parts
    found = found | {name: np.where(np.arange(60).reshape(-1, *[1] * (found[name].ndim - 1)) < 7, np.nan, found[name])}
    rows = metric.rows(context, found)
    assert any("not finite, and" in row.note and "7" in row.note for row in rows)
    assert all(np.isfinite(row.value) for row in rows)
    nothing = metric.rows(context, found | {name: np.full_like(found[name], np.nan)})
    assert any(np.isnan(row.value) for row in nothing)


def test_figures_of_two_metrics_have_names_of_their_own():
    metrics = [Calibration(3), Calibration(5)]
    report = sgm.evaluate(sgm.VP(), Posterior(), DATA, metrics, jr.key(0), n=8, progress=False)
    assert set(report.figures()) == {"calibration", "calibration_2"}


def test_metrics_are_named_by_flags_and_files():
    experiment = Experiment(DATA, partial(sgm.nn.MLP))
    names = ("C2ST", "Calibration", "ExpectedCoverage", "LocalC2ST")
    flags = ["--metrics", *names, "--metrics.Calibration.draws", "7", "--metrics.LocalC2ST.observation", "0.5", "1.0"]
    flags += ["--metrics.ExpectedCoverage.credibilities", "0.3"]
    chosen = from_flags(Experiment, flags, experiment)
    observed = LocalC2ST((0.5, 1.0))
    assert chosen.metrics == (C2ST(), Calibration(7), ExpectedCoverage(credibilities=(0.3,)), observed)
    assert from_json(to_json(chosen), Experiment).metrics == chosen.metrics
    flags = ["--metrics", "LocalC2ST", "--metrics.LocalC2ST.observation", "4"]
    assert from_flags(Experiment, flags, experiment).metrics == (LocalC2ST(4),)


def test_a_simulator_of_ones_own_is_named_by_flags_and_files():
    class Doubling(AbstractSimulator):
        factor: float = 2.0

        def __call__(self, key, theta):
            return self.factor * theta

    try:
        experiment = Experiment(DATA, partial(sgm.nn.MLP))
        flags = ["--metrics", "PosteriorPredictive", "--metrics.PosteriorPredictive.simulator.factor", "3"]
        chosen = from_flags(Experiment, flags, experiment)
        assert chosen.metrics == (PosteriorPredictive(Doubling(3.0)),)
        assert from_json(to_json(chosen), Experiment).metrics == chosen.metrics
    finally:
        forget(Doubling)
