"""Stand-ins for the metrics of an evaluation, with their options alone."""

import equinox as eqx

from sgm.likelihood import AbstractTrace, Exact
from sgm.model import AbstractVariance, FixedSmall


class AbstractMetric(eqx.Module):
    """A number that an evaluation reports."""


class LogLikelihood(AbstractMetric):
    """The log-likelihood of a split, along the probability flow.

    Arguments:
        trace: Estimate of the divergence.
        tolerance: Tolerance of the adaptive solve, where no accuracy is asked for.
        accuracy: Accuracy in nats; with it, tolerances and probes are chosen for each example.
        samples: Number of draws of each dequantised image, over which probabilities are averaged.
    """

    trace: AbstractTrace = Exact()
    tolerance: float = eqx.field(static=True, default=1e-4)
    accuracy: float | None = eqx.field(static=True, default=None)
    samples: int = eqx.field(static=True, default=1)


class ChainBound(AbstractMetric):
    """The variational bound of a chain on the log-likelihood of a split.

    Arguments:
        variance: Variance of the reverse transitions.
        steps: Number of the chain's steps that each of two draws visits, for each example.
    """

    variance: AbstractVariance = FixedSmall()
    steps: int = eqx.field(static=True, default=100)


class SlicedWasserstein(AbstractMetric):
    """The sliced Wasserstein distance between samples and a split.

    Arguments:
        projections: Number of random directions.
    """

    projections: int = eqx.field(static=True, default=128)
