"""A conditional model whose condition is fixed."""

from sgm.checks import check_instance
from sgm.model.base import AbstractModel, AbstractWrapper
from sgm.nn.condition import Condition


class Conditioned(AbstractWrapper):
    """A conditional model at one condition, as a model without any.

    Arguments:
        model: Conditional model.
        cond: Condition of one example.

    Raises:
        ValueError: for a condition that is not the model's.

    Example:
        >>> threes = Conditioned(model, sgm.Condition(label=3))
        >>> x = sgm.sample(sde, threes, key, 8, method=sgm.DDIM(10))
    """

    model: AbstractModel
    cond: Condition

    def __check_init__(self):
        check_instance("Conditioned", "model", self.model, AbstractModel, "sgm.ScoreModel(network, data=data)")
        check_instance("Conditioned", "cond", self.cond, Condition, "sgm.Condition(label=3)")
        if self.model.conditioning is not None:
            self.model.conditioning.check("Conditioned", self.cond)

    @property
    def conditioning(self):
        return None

    def predict(self, level, u, cond=None, key=None):
        if cond is not None:
            raise ValueError("Conditioned: the condition is fixed; leave cond out.")
        return self.model.predict(level, u, self.cond, key)
