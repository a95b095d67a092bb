"""The posterior predictive check, by a model whose posterior is known in closed form."""

import jax.random as jr
import numpy as np
import pytest
from posteriors import DATA, HOW, MODELS, NOISE, STD, AddNoise, Noisy, Posterior
from scipy import stats

import sgm
from sgm.data import AbstractSimulator
from sgm.evaluation import PosteriorPredictive, predictive_tails


class _First(AbstractSimulator):
    """A simulator of another shape than the data's."""

    def __call__(self, key, theta):
        return theta[:1]


class TestPosteriorPredictive:
    METRIC = PosteriorPredictive(AddNoise(), draws=200)

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
        right, biased = (
            sgm.evaluate(sgm.VP(), Posterior(bias=bias), DATA, [self.METRIC], jr.key(0), n=200, **HOW)
            for bias in (0.0, 1.5)
        )
        assert right["predictive_small"].value < 0.05 and biased["predictive_small"].value > 0.5
        assert biased["predictive_small_worst"].value >= biased["predictive_small"].value

    def test_a_wrong_simulator_is_seen(self, reports):
        report = reports("exact", PosteriorPredictive(AddNoise(0.05), draws=200))
        assert reports("exact", self.METRIC)["predictive_small"].value < 0.05
        assert report["predictive_tail"].value < 0.95 * reports("exact", self.METRIC)["predictive_tail"].value

    def test_tails_are_counted_with_the_observed_value(self):
        simulated = np.arange(9.0, dtype=np.float32)[:, None] + np.asarray([0.0, -100.0, np.nan], np.float32)
        found = predictive_tails(simulated, np.asarray([1.5, 0.0, 0.0], np.float32))
        np.testing.assert_allclose(found, [2 * 3 / 10, 2 * 1 / 10, np.nan])

    def test_a_number_is_an_observation_of_one_entry(self):
        metric = PosteriorPredictive(lambda key, theta: theta[0] + NOISE * jr.normal(key), draws=9)
        report = sgm.evaluate(sgm.VP(), Posterior(shape=(1,)), Noisy((1,)), [metric], jr.key(0), n=4, **HOW)
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
            (AddNoise, r"is the class _AddNoise; pass a function simulate\(key, theta\), or an instance of a subcl"),
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
        metric = PosteriorPredictive(simulator, draws=9)
        report = sgm.evaluate(sgm.VP(), Posterior(shape=(1,)), data, [metric], jr.key(0), n=4, **HOW)
        assert report.columns["predictive_tail"].shape == (4, 1)
        assert shapes == {((1,), "float32")}

    def test_what_cannot_be_compared_is_named(self):
        with pytest.raises(
            ValueError, match=r"gives observations of shape \(1,\), but a condition of the data has \(2,"
        ):
            sgm.evaluate(sgm.VP(), Posterior(), DATA, [PosteriorPredictive(_First())], jr.key(0), n=4, progress=False)
        with pytest.raises(ValueError, match=r"has the parts \[\]; pass data whose condition is what was observed"):
            sgm.evaluate(sgm.VP(), Posterior(), sgm.data.Moons(), [self.METRIC], jr.key(0), n=4, progress=False)
