from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp

from sgm.model.base import AbstractModel
from sgm.model.prediction import AbstractPrediction, Velocity


class ScoreModel(AbstractModel):
    """A network, read through a prediction.

    `network(level, u, cond, key=None)` acts on one example, with `level = log tan(theta)` a scalar, `u` and the output
    of shape `shape`; it drops units out only when given a key. Conditions are checked against its
    `conditioning`, if it has that.
    """

    network: Callable
    prediction: AbstractPrediction = Velocity()
    shape: tuple[int, ...] = eqx.field(static=True, kw_only=True)

    @property
    def conditioning(self):
        return getattr(self.network, "conditioning", None)

    def predict(self, theta, u, cond=None, key=None):
        level = jnp.log(jnp.tan(theta))
        return self.prediction.estimate(lambda inputs: self.network(level, inputs, cond, key=key), theta, u)
