"""What a simulator is."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray


class AbstractSimulator(eqx.Module):
    """What draws an observation of parameters, written in JAX."""

    @abstractmethod
    def simulate(self, theta: Float[Array, "..."], key: PRNGKeyArray) -> Float[Array, "..."]:
        """Draw x given theta.

        Arguments:
            theta: Parameters, of the shape of one example, in the data's units.
            key: Key of the draw.

        Returns:
            An observation, of the shape and in the units of the condition.
        """
