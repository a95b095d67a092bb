"""Guidance by a weaker model of the same data."""

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, AbstractWrapper, check_alike
from sgm.model.per_example import PerExample, number_of
from sgm.types import Number


class AutoGuidance(AbstractWrapper):
    """A model that is driven away from a weaker one: (1 + weight) model - weight weaker.

    The weaker model is of the same data and conditions, but smaller or trained for less time, so that it errs where
    the model errs, only more. Weight w is w + 1 in the paper.

    Arguments:
        model: Model.
        weaker: Weaker model, of the same shape and units.
        weight: Weight; 0 is the model itself. `PerExample(weights)` gives each example its own.

    Raises:
        ValueError: for models of different shapes or units.

    Example:
        >>> guided = AutoGuidance(model, early, weight=1.0)  # early, such as sgm.load("runs/digits", step=1_000)[1]
        >>> x = sgm.sample(sde, guided, key, 8, method=sgm.DDIM(10))

    Reference: Karras et al. 2024 (arXiv:2406.02507).
    """

    model: AbstractModel
    weaker: AbstractModel
    weight: Number | PerExample = 1.0

    def __check_init__(self):
        for name in ("model", "weaker"):
            check_instance(
                "AutoGuidance", name, getattr(self, name), AbstractModel, "sgm.ScoreModel(network, data=data)"
            )
        check_alike("AutoGuidance", self.model, self.weaker)

    def predict(self, level, u, cond=None, key=None):
        ours, theirs = (model.predict(level, u, cond, key) for model in (self.model, self.weaker))
        return ours.extrapolated(theirs, number_of("AutoGuidance", self.weight))
