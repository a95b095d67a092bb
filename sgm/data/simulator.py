"""What a simulator is."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray


class AbstractSimulator(eqx.Module):
    """A simulator with a name, which flags and files can choose. Elsewhere a function of (key, theta) does as well."""

    @abstractmethod
    def __call__(self, key: PRNGKeyArray, theta: Float[Array, "..."]) -> Float[Array, "..."]:
        """Draw x given theta.

        Arguments:
            key: Key of the draw.
            theta: Parameters, of the shape of one example, in the data's units.

        Returns:
            An observation, of the shape and in the units of the condition.
        """
