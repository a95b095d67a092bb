"""A stand-in for the callable `Loss`, with its options alone."""

import equinox as eqx

from sgm.training.objective import AbstractObjective, Squared
from sgm.training.times import AbstractTimeSampling, UniformLogSNR
from sgm.training.weightings import AbstractWeighting, LikelihoodWeighting


class Loss(eqx.Module):
    """The loss that a model is trained on.

    Arguments:
        weighting: Weight of the error at each time.
        times: Distribution of the times.
        objective: Error of an estimate.
        condition_dropout: Probability with which an example's condition is dropped; above 0 the network learns a null
            in its place.
    """

    weighting: AbstractWeighting = LikelihoodWeighting()
    times: AbstractTimeSampling = UniformLogSNR()
    objective: AbstractObjective = Squared()
    condition_dropout: float = eqx.field(static=True, default=0.0)
