"""What every noising process is, whatever its states are."""

from abc import abstractmethod
from typing import Any, TypeVar

import equinox as eqx

from sgm.types import Number, OfTime, Time


class AbstractProcess(eqx.Module):
    """A process from data at `t0` to a known prior at `t1`: what sampling, training and evaluation need of one."""

    t0: eqx.AbstractVar[Number]
    """The end of the data."""
    t1: eqx.AbstractVar[Number]
    """The end of the prior."""

    @property
    @abstractmethod
    def prior(self) -> Any:
        """What sampling starts from, which has `sample(key, shape)`."""

    @property
    @abstractmethod
    def ends_in_pure_noise(self) -> bool | None:
        """Whether nothing is left of the data at t1; None where the process is traced and cannot be looked at."""

    @property
    @abstractmethod
    def has_flow(self) -> bool:
        """Whether it has a probability flow, along which a density is known."""

    @abstractmethod
    def until(self, t: Number) -> "AbstractProcess":
        """The process that ends at an earlier time `t`."""

    @abstractmethod
    def curves(self, t: Time) -> tuple[dict[str, OfTime], ...]:
        """What a figure shows of the process at the times `t`: three panels of lines, by their names."""


Process = TypeVar("Process", bound=AbstractProcess)
"""The kind of process that a part is made for."""
