"""What a network's output means, whatever the states of its process are."""

from abc import abstractmethod
from typing import Any, Generic

import equinox as eqx

from sgm.model.reverse import AbstractReverseModel
from sgm.nn.units import Units
from sgm.sde.process import Process


class AbstractParameterisation(eqx.Module, Generic[Process]):
    """The meaning of a network's output: which model an experiment makes of a network."""

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for each entry of an example, side by side along the last axis."""
        return 1

    @abstractmethod
    def check(self, sde: Process) -> None:
        """Raise for a process under which it cannot be trained."""

    @abstractmethod
    def network_shape(self, sde: Process, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape for which a network of examples of a shape is built."""

    @abstractmethod
    def model(
        self,
        network: Any,
        sde: Process,
        *,
        shape: tuple[int, ...] | None = None,
        units: Units | None = None,
        data: Any = None,
    ) -> AbstractReverseModel:
        """The model of a network.

        Arguments:
            network: Network.
            sde: Process.
            shape: Shape of one example; None for that of the data.
            units: Units of real numbers; None for those of the data.
            data: Data set, where there is one.
        """
