"""The local classifier two-sample test, by a model whose posterior is known in closed form."""

import re
import warnings
from functools import partial

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posteriors import DATA, NOISE, STD, WRONG, Noisy, Posterior

import sgm
from sgm.evaluation import LocalC2ST, local_c2st

_to_jax = partial(jnp.asarray, dtype=jnp.float32)


class TestLocalC2ST:
    METRIC, N = LocalC2ST(observation=(0.4,), nulls=19), 200

    def test_an_exact_posterior_passes(self, reports):
        report = reports("exact", self.METRIC, (1,), self.N)
        assert report["local_c2st_p"].value > 0.05
        # As the note says, the statistic is of the size of those of permuted labels, not 0.
        said = re.search(r"; ([\d.]+) of permuted labels, as of an exact model$", report["local_c2st"].note)
        assert float(said[1]) / 5 < report["local_c2st"].value < 5 * float(said[1])

    @pytest.mark.slow_except("narrow")
    @pytest.mark.parametrize("name", WRONG)
    def test_a_wrong_posterior_fails(self, reports, name):
        """With 19 nulls the p-value is 1 / 20 at least."""
        report = reports(name, self.METRIC, (1,), self.N)
        assert report["local_c2st_p"].value == pytest.approx(0.05)
        assert report["local_c2st"].value > 5 * reports("exact", self.METRIC, (1,), self.N)["local_c2st"].value

    def test_draws_are_those_at_the_observation(self, reports):
        drawn = reports("narrow", self.METRIC, (1,), self.N).columns["local_observed_draws"]
        assert drawn.mean() == pytest.approx(0.4 / (1 + NOISE**2), abs=4 * 0.5 * STD / self.N**0.5)
        assert drawn.std() == pytest.approx(0.5 * STD, rel=4 / (2 * self.N) ** 0.5)

    def test_a_record_is_an_observation(self, reports):
        drawn = reports("exact", LocalC2ST(7, nulls=1), (1,), self.N).columns["local_observed_draws"]
        x = Noisy((1,)).rows("test", 7, 8)[1]["params"][0, 0]
        assert drawn.mean() == pytest.approx(x / (1 + NOISE**2), abs=4 * STD / self.N**0.5)

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
            found, same = (local_c2st(*map(to, parts), to(np.zeros(2)), nulls=0) for to in (np.asarray, _to_jax))
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
