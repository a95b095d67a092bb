"""The base of all networks that read a timestep, as those of diffusers do."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgm.nn.layers import Image


class AbstractTimestepNetwork(eqx.Module):
    """A network that reads a timestep. Its arguments are the fields of its config.json, which it keeps.

    It acts on one example, and computes in the precision of its input.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Shape of one example: (height, width, channels)."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of channels of its output."""

    @property
    @abstractmethod
    def classes(self) -> int | None:
        """Number of classes of the label, None for a network without labels."""

    @property
    def has_null(self) -> bool:
        """Whether it has a null for classifier-free guidance: the label `classes`, which stands for no label."""
        return False

    @abstractmethod
    def __call__(
        self,
        x: Image,
        timestep: Float[Array, ""],
        label: Int[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Any:
        """Compute the output.

        Arguments:
            x: Noisy example, of shape (height, width, channels).
            timestep: Timestep of the noise level, which need not be whole.
            label: Label of the example, 0 ... classes - 1, where it has `classes`. With `has_null`, None and the label
                `classes` are the null.
            key: Key of the dropout, which is switched off without one.

        Returns:
            The output, of shape (height, width, outputs).
        """
