"""A posterior learnt from simulations, checked in five ways.

    python docs/examples/check_posterior.py

Two parameters, uniform in a square, make two numbers with noise of 0.1: theta_1 + theta_2^2 and theta_1 - theta_2. A
perceptron is trained on fresh simulations for a minute or two, and five metrics look at 500 records that it has not
seen. It prints their report, and leaves the figure of each in figs/check_posterior_NAME.png.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr

import sgm
from sgm import plot
from sgm.evaluation import C2ST, Calibration, ExpectedCoverage, LocalC2ST, PosteriorPredictive, Report
from sgm.training import Adam, KarrasWeighting, NormalLogSNR

PRIOR = sgm.model.Uniform(jnp.asarray([-1.0, -1.0]), jnp.asarray([1.0, 1.0]))


def simulator(key, theta):
    """Two numbers, given two parameters."""
    return jnp.stack([theta[0] + theta[1] ** 2, theta[0] - theta[1]]) + 0.1 * jr.normal(key, (2,))


def main(figures: Path, steps: int = 4000, records: int = 500, draws: int = 99) -> Report:
    """Train, evaluate and draw.

    Arguments:
        figures: Folder of the figures.
        steps: Steps of training.
        records: Number of records.
        draws: Draws for each record.

    Returns:
        The report.
    """
    data = sgm.data.Simulations(simulator, PRIOR)
    network = sgm.nn.MLP(data.shape, 128, 3, conditioning=data.conditioning, key=jr.key(0))
    model = sgm.ScoreModel(network, sgm.model.Karras(), data=data)
    how = {"loss": sgm.Loss(KarrasWeighting(), NormalLogSNR()), "optimiser": Adam(3e-3, warmup=200), "batch_size": 256}
    sde, model, _ = sgm.train(sgm.VP(), model, data, jr.key(1), steps=steps, **how)
    counts = {"draws": draws}
    metrics = [C2ST(), Calibration(**counts), ExpectedCoverage(**counts), LocalC2ST(observation=7, nulls=19)]
    metrics.append(PosteriorPredictive(simulator, **counts))
    report = sgm.evaluate(sde, model, data, metrics, jr.key(2), n=records, sampler=sgm.DPMSolverPP(50))
    print(report)
    for name, figure in report.figures().items():
        plot.save(figure, figures / f"check_posterior_{name}.png")
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Check a posterior in five ways.")
    parser.add_argument("--figures", type=Path, default=Path("figs"), help="folder of the figures")
    main(parser.parse_args().figures)
