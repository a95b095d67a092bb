"""The diagnostics of posteriors, by a model whose posterior is known in closed form."""

from functools import partial

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from classes import forget
from posteriors import BIAS, DATA, STD, WRONG, AddNoise, Posterior
from scipy import stats

import sgm
from sgm.data import AbstractSimulator
from sgm.evaluation import C2ST, Calibration, ExpectedCoverage, LocalC2ST, PosteriorPredictive, rank_ecdf
from sgm.experiment import Experiment
from sgm.flags import from_flags
from sgm.serial import from_json, to_json


class TestC2ST:
    def test_an_exact_posterior_cannot_be_told_from_the_records(self, reports):
        assert reports("exact", C2ST(), (1,))["c2st"].value == pytest.approx(0.5, abs=3 * 0.5 / 400**0.5)

    @pytest.mark.slow_except("narrow")
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
            sgm.evaluate(sgm.VP(), Posterior(shape=images.shape), images, [Calibration()], jr.key(0), progress=False)


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


ALL = [C2ST(folds=2), Calibration(9), ExpectedCoverage(9), LocalC2ST(3, nulls=1), PosteriorPredictive(AddNoise(), 9)]


@pytest.mark.slow_except("Calibration", "ExpectedCoverage", "PosteriorPredictive")
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


@pytest.mark.slow_except("Calibration", "ExpectedCoverage")
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
    how = {"n": 8, "sampler": sgm.DPMSolverPP(4), "progress": False}
    report = sgm.evaluate(sgm.VP(), Posterior(), DATA, metrics, jr.key(0), **how)
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
