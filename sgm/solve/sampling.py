"""What every method of sampling is, whatever process it reverses."""

from abc import abstractmethod
from typing import Any, Generic

import diffrax
import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from sgm.model.reverse import Model
from sgm.nn.condition import Condition
from sgm.nn.units import Units
from sgm.sde.process import Process


class AbstractSamplingMethod(eqx.Module, Generic[Process, Model]):
    """A way to sample: what `sgm.sample` and an experiment need of one."""

    def standardised(self, units: Units) -> "AbstractSamplingMethod[Process, Model]":
        """The method with all that it holds in the data's units brought to standardised coordinates."""
        return self

    def process(self, sde: Process) -> Process:
        """The process between the ends of its steps, where they do not go all the way; else `sde` itself."""
        return sde

    @abstractmethod
    def check(self, sde: Process) -> None:
        """Raise for a process that it cannot sample."""

    @abstractmethod
    def check_options(
        self, sde: Process, saveat: diffrax.SaveAt | None, adjoint: diffrax.AbstractAdjoint | None
    ) -> None:
        """Raise for a path to save, or a way to differentiate, that it cannot take; None is not asked for."""

    def levels(self, sde: Process, saveat: diffrax.SaveAt | None = None) -> Float[Array, " levels"] | None:
        """The levels of its fixed steps, with those at which `saveat` looks among them; None where it has none."""
        return None

    @abstractmethod
    def draw(
        self,
        sde: Process,
        model: Model,
        cond: Condition | None,
        key: PRNGKeyArray,
        x1: Array,
        saveat: diffrax.SaveAt | None,
        adjoint: diffrax.AbstractAdjoint,
        progress: diffrax.AbstractProgressMeter,
        *,
        levels: Float[Array, " levels"] | None,
        from_pure_noise: bool | None,
    ) -> tuple[PyTree[Array], Int[Array, ""] | Any, Bool[Array, ""] | Any]:
        """Draw one example.

        Arguments:
            sde: Process.
            model: Model.
            cond: Condition of the example.
            key: Key of the path.
            x1: State at t1.
            saveat: Times at which the path is wanted; None for its end alone, in the data's units.
            adjoint: Way to differentiate.
            progress: Progress meter.
            levels: Those of `self.levels(sde, saveat)`.
            from_pure_noise: Whether the process ends in pure noise; None where that is not known before the solve.

        Returns:
            What is wanted, the number of steps, and whether they came to their end.
        """
