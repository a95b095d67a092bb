"""Figures of posteriors: their calibration, coverage, predictions and what a classifier sees in them."""

import numpy as np
from jaxtyping import Float

from sgm.plot.base import SHOWN, Figure, axes_in_a_row

Curve = Float[np.ndarray, " points"]

PREDICTIVE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The shares of the quantiles that `predictive` draws."""

_MOST_OUTPUTS = 60


def ranks(points: Curve, ecdfs: Float[np.ndarray, "parameters points"], lower: Curve, upper: Curve) -> Figure:
    """Draw the ECDF of each parameter's ranks less that of uniform ranks, and the band in which it should lie.

    Arguments:
        points: Values of the CDF of uniform ranks, as those of `sgm.evaluation.rank_envelope`.
        ecdfs: ECDF of the ranks of each parameter at the points, of which at most eight are shown.
        lower: Lower end of the band.
        upper: Upper end of the band.

    Returns:
        The figure.

    Example:
        >>> values = np.random.default_rng(0).integers(0, 21, (3, 200))  # ranks of three parameters among 20 draws
        >>> band = sgm.evaluation.rank_envelope(200, draws=20)
        >>> ecdfs = np.stack([sgm.evaluation.rank_ecdf(row, draws=20) for row in values])
        >>> figure = sgm.plot.ranks(band.points, ecdfs, band.lower, band.upper)
    """
    figure, axes = axes_in_a_row(1, (5.5, 3.5))
    axes[0].fill_between(points, lower - points, upper - points, color="0.88", linewidth=0, label="95% band")
    axes[0].axhline(0, color="0.5", linewidth=0.8)
    for place, ecdf in enumerate(ecdfs[:SHOWN]):
        axes[0].plot(points, ecdf - points, color=f"C{place}", linewidth=1.2, label=f"parameter {place}")
    axes[0].set(xlabel="rank / (draws + 1)", ylabel="ECDF - uniform", xlim=(0, 1))
    axes[0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def coverage(points: Curve, covered: Curve, lower: Curve, upper: Curve) -> Figure:
    """Draw the share of records in credible regions against their credibility, and the band in which it should lie.

    Arguments:
        points: Credibilities.
        covered: Share of the records that lie in the regions of each credibility.
        lower: Lower end of the band.
        upper: Upper end of the band.

    Returns:
        The figure.

    Example:
        >>> closer = np.random.default_rng(0).integers(0, 21, 200)  # draws that are closer than the truth, of 20
        >>> band, covered = sgm.evaluation.rank_envelope(200, 20), sgm.evaluation.rank_ecdf(closer, 20)
        >>> figure = sgm.plot.coverage(band.points, covered, band.lower, band.upper)
    """
    figure, axes = axes_in_a_row(1, (4.2, 4.2))
    axes[0].fill_between(points, lower, upper, color="0.88", linewidth=0, label="95% band")
    axes[0].plot((0, 1), (0, 1), color="0.5", linewidth=0.8)
    axes[0].plot(points, covered, color="C0", label="model")
    axes[0].set(xlabel="credibility", ylabel="expected coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes[0].legend(frameon=False, loc="upper left")
    return figure


def predictive(quantiles: Float[np.ndarray, "5 outputs"], observed: Float[np.ndarray, " outputs"]) -> Figure:
    """Draw intervals of the predictive distribution of each output, and what was observed.

    Each output is shifted and scaled to its own interval of 90%, which reaches from -1 to 1 if it is symmetric.

    Arguments:
        quantiles: Quantiles of each output, at the shares of `PREDICTIVE_QUANTILES`.
        observed: Observed value of each output. Of more than 60, 60 are shown, evenly spaced.

    Returns:
        The figure.

    Example:
        >>> simulated = np.random.default_rng(0).normal(size=(1000, 12))
        >>> quantiles = np.quantile(simulated, sgm.plot.PREDICTIVE_QUANTILES, axis=0)
        >>> figure = sgm.plot.predictive(quantiles, observed=simulated[0])
    """
    kept = np.unique(np.linspace(0, len(observed) - 1, _MOST_OUTPUTS).astype(int))
    reach = (quantiles[4] - quantiles[0]) / 2
    scale = np.where(reach > 0, reach, 1)
    low, lower, _, upper, high = (quantiles[:, kept] - quantiles[2, kept]) / scale[kept]
    values = (observed[kept] - quantiles[2, kept]) / scale[kept]
    figure, axes = axes_in_a_row(1, (min(max(4, 0.3 * len(kept) + 2), 12), 3.5))
    axes[0].vlines(kept, low, high, color="C0", linewidth=1.5, label="90%")
    axes[0].vlines(kept, lower, upper, color="C0", linewidth=5, label="50%")
    axes[0].scatter(kept, values, marker="x", s=40, color="C3", zorder=3, label="observed")
    axes[0].axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes[0].set(xlabel="output", ylabel="(value - median) / half of 90%", xlim=(-0.7, len(observed) - 0.3))
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def local(theta: Float[np.ndarray, "n parameters"], probabilities: Float[np.ndarray, " n"]) -> Figure:
    """Draw what a classifier says of draws at one observation: a histogram, and where in the parameters it says so.

    Arguments:
        theta: Draws of the model at the observation, of which the first two parameters are shown.
        probabilities: Probability of each draw to be one of the simulator's: 1/2 where the model is exact, above where
            it has too few draws, below where it has too many.

    Returns:
        The figure.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(300, 2))
        >>> figure = sgm.plot.local(draws, 1 / (1 + np.exp(-draws[:, 0])))  # too few draws to the right
    """
    figure, axes = axes_in_a_row(2, (9, 3.7))
    axes[0].hist(probabilities, bins=40, range=(0, 1), color="C0")
    axes[0].axvline(0.5, color="0.2", linewidth=1)
    axes[0].set(xlabel="probability of a record", ylabel="draws", xlim=(0, 1))
    second = theta[:, 1] if theta.shape[1] > 1 else probabilities
    size = min(max(2, 2000 / len(theta)), 20)
    colours = {"c": probabilities, "cmap": "coolwarm", "vmin": 0.0, "vmax": 1.0}
    cloud = axes[1].scatter(theta[:, 0], second, s=size, linewidths=0, **colours)
    axes[1].set(xlabel="parameter 0", ylabel="parameter 1" if theta.shape[1] > 1 else "probability of a record")
    figure.colorbar(cloud, label="probability of a record")
    return figure
