"""Evaluations of a model whose draws are kept within a support."""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from posteriors import DATA, HOW, NOISE, STD, Noisy, Posterior
from scipy import stats

import sgm
from sgm.evaluation import C2ST, Calibration, LocalC2ST


@dataclass(frozen=True)
class Positive(Noisy):
    """theta = |N(0, 1)|, whose posterior is the same Gaussian, cut off below 0."""

    def simulate(self, key, n):
        theta, noise = jr.normal(key, (2, n, *self.shape))
        return jnp.abs(theta), {"params": jnp.abs(theta) + NOISE * noise}


def is_positive(x):
    return jnp.all(x > 0)


class TestSupport:
    def test_a_posterior_that_leaks_is_right_within_the_support(self):
        """The model leaks at small x. Its draws within the support are exact."""
        run = partial(sgm.evaluate, sgm.VP(), Posterior(shape=(1,)), Positive((1,)), key=jr.key(0), n=400, **HOW)
        leaky, right = (run(metrics=[Calibration(63)], support=support) for support in (None, is_positive))
        assert leaky["calibration_p_0"].value < 1e-3 and right["calibration_p_0"].value > 0.05

    def test_draws_have_the_distribution_that_is_cut_off(self):
        """At x = 0, half of a Gaussian: its mean is (2 / pi)^1/2 standard deviations."""
        metrics = [LocalC2ST((0.0,), nulls=1)]
        report = sgm.evaluate(
            sgm.VP(), Posterior(shape=(1,)), Positive((1,)), metrics, jr.key(0), support=is_positive, n=400, **HOW
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
            n=400,
            **HOW,
        )
        assert np.isnan(report["c2st"].value) and "400 of 400 draws are not finite" in report["c2st"].note

    @pytest.mark.slow
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
