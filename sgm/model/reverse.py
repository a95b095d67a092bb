"""What every model of a reversed process is, whatever its states are."""

from abc import abstractmethod
from typing import Any, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from sgm.checks import check_instance
from sgm.nn.units import Units
from sgm.sde.process import AbstractProcess


class AbstractReverseModel(eqx.Module):
    """A model that reverses a process: what sampling, training and evaluation need of one.

    It is of examples of the given `shape`, and acts on one example; `jax.vmap` makes it act on many.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]
    """Shape of one example."""

    @property
    def units(self) -> Units:
        """The units of the data: `predict` acts in standardised coordinates, all else in the data's own."""
        return Units()

    @property
    def conditioning(self) -> Any:
        """What a condition is checked against, by its `check(call, cond)`; None where any will do."""
        return None

    @property
    def defined_at_pure_noise(self) -> bool:
        """Whether `predict` tells x0 at level = inf, where u holds nothing of the data."""
        return True

    @property
    def takes_missing(self) -> bool:
        """Whether entries of u may be nan, which are missing: the others are estimated without them."""
        return False

    @property
    @abstractmethod
    def takes_levels(self) -> bool:
        """Whether examples are levels themselves, 0, 1, 2 and so on, and not real numbers."""

    @abstractmethod
    def check_process(self, call: str, process: Any) -> None:
        """Raise TypeError or ValueError for a process that it does not reverse."""

    @abstractmethod
    def check_levels(self, call: str, levels: int | None) -> None:
        """Raise ValueError for a data set of this number of levels, None of real numbers, that it is not of."""

    @abstractmethod
    def check_batch(self, call: str, x: Shaped[Array | np.ndarray, "..."]) -> tuple[int, ...]:
        """The batch axes of examples in the data's units. Raise for what is no batch of them."""

    @abstractmethod
    def as_seen(
        self, call: str, x: Shaped[Array | np.ndarray, "..."]
    ) -> PyTree[Float[Array, "..."] | Shaped[Array, "..."]]:
        """Examples in the data's units as a loss takes them. Raise for what is no batch of them."""


Model = TypeVar("Model", bound=AbstractReverseModel)
"""The kind of model that a part is made for."""


def check_fit(call: str, model: AbstractReverseModel, shape: tuple[int, ...], levels: int | None) -> None:
    """Raise ValueError unless the model is of data of this shape and number of levels, None of real numbers."""
    if model.shape != shape:
        raise ValueError(
            f"{call}: the data are of shape {shape}, but the model is of examples of shape {model.shape}; pass "
            "ScoreModel(network, data=data), with a network for data.shape, or data like those of its training."
        )
    model.check_levels(call, levels)


def check_pair(call: str, process: Any, model: Any) -> None:
    """Raise unless these are a process and a model that reverses it, in this order.

    Raises:
        TypeError: for other objects, or the two in the wrong order.
        ValueError: for a process that the model is not of.
    """
    if isinstance(process, AbstractReverseModel) and isinstance(model, AbstractProcess):
        raise TypeError(
            f"{call}: the first argument is the model {type(process).__name__} and the second the process "
            f"{type(model).__name__}; pass the process first, then the model."
        )
    check_instance(call, "sde", process, AbstractProcess, "sgm.VP()")
    check_instance(call, "model", model, AbstractReverseModel, "sgm.ScoreModel(network, shape=(2,))")
    model.check_process(call, process)
