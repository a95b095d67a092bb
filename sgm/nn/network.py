"""What every network is."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.nn.conditioning import Conditioning


class AbstractLevelNetwork(eqx.Module):
    """A network of the noise level, which `sgm.ScoreModel` reads through a prediction. It acts on one example."""

    conditioning: eqx.AbstractVar[Conditioning]
    """What the network is conditioned on."""

    @property
    def takes_missing(self) -> bool:
        """Whether entries of u may be nan, which are missing: the others are computed without them."""
        return False

    @abstractmethod
    def __call__(
        self,
        level: Float[Array, ""],
        u: Float[Array, "*space channels"],
        cond: Any = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*space outputs"]:
        """Compute the outputs.

        Arguments:
            level: Noise level log tan(theta).
            u: Noisy example, of the shape of an example.
            cond: Condition of the example, a `sgm.Condition`.
            key: Key of the dropout, which is switched off without one.

        Returns:
            The outputs, one after the other along the last axis.
        """


class AbstractNetwork(AbstractLevelNetwork):
    """A network that an experiment can build.

    A subclass is built as `Network(shape, ..., outputs=1, conditioning=conditioning, key=key)`, and keeps its
    arguments, but for the key, under their names.
    """
