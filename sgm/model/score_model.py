import inspect
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp

from sgm.checks import check_instance
from sgm.model.base import AbstractModel
from sgm.model.prediction import AbstractPrediction, Velocity
from sgm.sde.level import LARGEST_LEVEL


class ScoreModel(AbstractModel):
    """A network, read through a prediction.

    `network(level, u, cond, key=None)` acts on one example, with `level = log tan(theta)` a scalar, clipped to -20 ...
    20 so that it is finite for pure noise too, and `u` and the output of shape `shape`, or as many times its last axis
    as the prediction reads outputs. It drops units out only when given a key. Conditions are checked against its
    `conditioning`, if it has that.

    Raises TypeError for a network that cannot be called so, and, when first called, ValueError for an output of
    another shape.
    """

    network: Callable
    prediction: AbstractPrediction = Velocity()
    shape: tuple[int, ...] = eqx.field(static=True, kw_only=True)

    def __check_init__(self):
        check_instance("ScoreModel", "prediction", self.prediction, AbstractPrediction, "sgm.model.Velocity()")
        check_instance("ScoreModel", "shape", self.shape, tuple, "(28, 28, 1)")
        name = type(self.network).__name__
        remedy = "pass one that is called as network(level, u, cond, key=None) on one example"
        if not callable(self.network):
            raise TypeError(f"ScoreModel: network is a {name}, which cannot be called; {remedy}.")
        try:
            signature = inspect.signature(self.network)
        except ValueError:  # Of some compiled functions it is not known.
            return
        try:
            signature.bind(0.0, None, None, key=None)
        except TypeError as error:
            raise TypeError(f"ScoreModel: network has the signature {signature} ({error}); {remedy}.") from None

    @property
    def conditioning(self):
        return getattr(self.network, "conditioning", None)

    @property
    def defined_at_pure_noise(self):
        return self.prediction.defined_at_pure_noise

    def predict(self, level, u, cond=None, key=None):
        seen = jnp.clip(level, -LARGEST_LEVEL, LARGEST_LEVEL)

        def network(inputs):
            output = self.network(seen, inputs, cond, key=key)
            self._check_output(jnp.shape(output))
            return output

        return self.prediction.estimate(network, level, u)

    def _check_output(self, found):
        wanted = self.shape
        if self.prediction.outputs > 1:
            wanted = (*wanted[:-1], self.prediction.outputs * wanted[-1])
        if found != wanted:
            raise ValueError(
                f"ScoreModel: the network's output has shape {found}, but for examples of shape {self.shape} "
                f"{type(self.prediction).__name__} reads {wanted}; pass a network with outputs of that shape."
            )
