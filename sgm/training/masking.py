"""Which entries of a training example are observed: one model of them all learns every conditional."""

import math
import operator
from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, PRNGKeyArray

from sgm.checks import check_tuple


def _to_positions(observed: tuple[int, ...]) -> tuple[int, ...]:
    return check_tuple("FixedEntries", "observed", observed, operator.index, "(2, 3)")


class AbstractMasking(eqx.Module):
    """A distribution of the entries that are observed in training, and given to the network as they are."""

    @abstractmethod
    def mask(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Bool[Array, "*shape"]:
        """Draw the entries that are observed, of an example of `shape`: true for those.

        Arguments:
            key: Key of the draw.
            shape: Shape of the example.

        Returns:
            Truth values of that shape.

        Example:
            >>> UniformSubsets().mask(jax.random.key(0), (5,))
        """


class UniformSubsets(AbstractMasking):
    """Any subset of the entries but all. Its size is uniform on 0 ... D - 1, and every subset of a size as likely.

    Example:
        >>> loss = sgm.Loss(masking=sgm.training.UniformSubsets())
        >>> observed = UniformSubsets().mask(key, (5,))  # five truth values, not all of them true

    Reference: Gloeckler et al. 2024 (Simformer, arXiv:2404.09636).
    """

    def mask(self, key, shape):
        key_count, key_order = jr.split(key)
        size = math.prod(shape)
        count = jr.randint(key_count, (), 0, size)
        return (jr.permutation(key_order, size) < count).reshape(shape)


class FixedEntries(AbstractMasking):
    """The same entries every time, as observations of which all others are parameters.

    Arguments:
        observed: Positions of the observed entries along the only axis of an example.

    Raises:
        TypeError: for positions that are no integers.
        ValueError: for no position, or one twice; when drawn, for positions that an example has not, or all of them.

    Example:
        >>> loss = sgm.Loss(masking=sgm.training.FixedEntries((2, 3)))
    """

    observed: tuple[int, ...] = eqx.field(static=True, converter=_to_positions)

    def __check_init__(self):
        if not self.observed or len(set(self.observed)) != len(self.observed):
            raise ValueError(f"FixedEntries: observed = {self.observed}; pass one or more different positions.")

    def mask(self, key, shape):
        if len(shape) != 1 or not all(0 <= place < shape[0] for place in self.observed):
            raise ValueError(
                f"FixedEntries: observed = {self.observed}, but the examples have shape {shape}; pass positions from 0 "
                "of examples that are vectors."
            )
        if len(self.observed) == shape[0]:
            raise ValueError(
                f"FixedEntries: observed = {self.observed} are all entries of the examples, and none is left to learn; "
                "leave out those that are to be drawn."
            )
        return jnp.zeros(shape, bool).at[jnp.asarray(self.observed)].set(True)
