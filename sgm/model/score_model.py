"""A network as a model."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from sgm.checks import check_instance
from sgm.model.base import AbstractModel
from sgm.model.prediction import AbstractPrediction, Velocity
from sgm.nn.conditioning import with_statistics
from sgm.nn.network import AbstractLevelNetwork, AbstractNetwork
from sgm.nn.units import Units, check_units
from sgm.sde.level import LARGEST_LEVEL


@runtime_checkable
class Described(Protocol):
    """What a model asks of its data: any data set of `sgm.data`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def units(self) -> Any: ...  # `Units`, which a data set may also keep once it has found them.
    def statistics(self) -> tuple[np.ndarray, np.ndarray] | None: ...


class ScoreModel(AbstractModel):
    """A network, read through a prediction, in the units of its data.

    `network(level, u, cond, key=None)` acts on one example, with `level = log tan(theta)` a scalar, clipped to -20 ...
    20 so that it is finite for pure noise too, and `u` and the output of shape `shape`, or as many times its last axis
    as the prediction reads outputs. It sees standardised data, `cond.observed` too, and applies dropout only when
    given a key. Conditions are checked against its `conditioning`, if it has that. Entries that are observed are
    estimated by what they are.

    Arguments:
        network: Network.
        prediction: Meaning of its output.
        shape: Shape of one example. Required where `data` is not given.
        units: Units of the data: by default those of `data`, else of standardised data.
        data: Data set on which it is trained, for its shape, its units and the statistics of its parameters.

    Raises:
        TypeError: for a network that cannot be called so, and for neither `shape` nor `data`.
        ValueError: for units or a network that do not fit the shape; when first called, for an output of another shape.

    Example:
        >>> model = ScoreModel(MLP((2,), key=jr.key(0)), data=data)  # in the units of the data
        >>> model = ScoreModel(MLP((2,), key=jr.key(0)), Karras(), shape=(2,), units=sgm.Units(mean=3.0, std=0.4))
    """

    network: Callable
    prediction: AbstractPrediction
    shape: tuple[int, ...] = eqx.field(static=True)
    _units: Units

    def __init__(
        self,
        network: AbstractLevelNetwork | Callable,
        prediction: AbstractPrediction = Velocity(),
        *,
        shape: tuple[int, ...] | None = None,
        units: Units | None = None,
        data: Described | None = None,
    ):
        check_instance("ScoreModel", "prediction", prediction, AbstractPrediction, "sgm.model.Velocity()")
        if data is None:
            check_instance("ScoreModel", "shape", shape, tuple, "(28, 28, 1), or the data set as data=")
        elif shape is not None and tuple(shape) != tuple(data.shape):
            raise ValueError(f"ScoreModel: shape = {shape}, but the data are of {data.shape}; leave shape out.")
        shape = tuple(data.shape) if data is not None else shape
        assert shape is not None
        of_data: Units = Units() if data is None else data.units
        units = of_data if units is None else units
        check_units("ScoreModel", units, shape)
        check_network("ScoreModel", network, shape)
        statistics = None if data is None else data.statistics()
        self.network = network if statistics is None else with_statistics(network, *statistics)
        self.prediction = prediction
        self.shape, self._units = shape, units

    @property
    def units(self):
        return self._units

    @property
    def conditioning(self):
        return getattr(self.network, "conditioning", None)

    @property
    def defined_at_pure_noise(self):
        return self.prediction.defined_at_pure_noise

    @property
    def takes_missing(self):
        return getattr(self.network, "takes_missing", False)

    def predict(self, level, u, cond=None, key=None):
        seen = jnp.clip(level, -LARGEST_LEVEL, LARGEST_LEVEL)
        observed = None if cond is None else cond.observed
        if cond is not None and observed is not None:
            observed = self.units.standardise(observed.astype(jnp.result_type(observed, u)))
            cond = dataclasses.replace(cond, observed=observed)

        def network(inputs):
            output = self.network(seen, inputs, cond, key=key)
            self._check_output(jnp.shape(output))
            return output

        estimate = self.prediction.estimate(network, level, u)
        return estimate if observed is None else estimate.known(level, u, observed.astype(u.dtype))

    def _check_output(self, found):
        wanted = self.shape
        if self.prediction.outputs > 1:
            wanted = (*wanted[:-1], self.prediction.outputs * wanted[-1])
        if found != wanted:
            raise ValueError(
                f"ScoreModel: the network's output has shape {found}, but for examples of shape {self.shape} "
                f"{type(self.prediction).__name__} reads {wanted}; pass a network with outputs of that shape."
            )


def check_network(call: str, network: Any, shape: tuple[int, ...]) -> None:
    """Raise for what is no network of examples of this shape."""
    name, remedy = type(network).__name__, "pass one that is called as network(level, u, cond, key=None) on one example"
    if not callable(network):
        raise TypeError(f"{call}: network is a {name}, which cannot be called; {remedy}.")
    # Some networks take images of other heights and widths.
    own = getattr(network, "shape", shape) if isinstance(network, AbstractNetwork) else shape
    if len(own) != len(shape) or own[-1] != shape[-1]:
        raise ValueError(
            f"{call}: the network gets examples of shape {shape}, but is a {name} for {own}; build it with "
            f"shape {shape}."
        )
    try:
        signature = inspect.signature(network)
    except ValueError:  # Of some compiled functions it is not known.
        return
    try:
        signature.bind(0.0, None, None, key=None)
    except TypeError as error:
        raise TypeError(f"{call}: network has the signature {signature} ({error}); {remedy}.") from None
