"""Equal blocks, one after the other."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax


class Stacked(eqx.Module):
    """Blocks of one shape, as one block whose arrays have a leading axis: a loop over them is compiled once.

    Arguments:
        each: The blocks, made by `eqx.filter_vmap`.
    """

    each: Any

    def __len__(self) -> int:
        return len(jax.tree.leaves(eqx.filter(self.each, eqx.is_array))[0])

    def scan(self, apply: Callable[[Any, Any, Any], tuple[Any, Any]], carry: Any, more: Any = None) -> tuple[Any, Any]:
        """Go through the blocks.

        Arguments:
            apply: From a block, the carry and its part of `more` to the carry of the next and an output.
            carry: What the first block takes.
            more: Arrays with a leading axis, an entry for each block.

        Returns:
            The carry after the last block, and the outputs with a leading axis.
        """
        arrays, static = eqx.partition((self.each, more), eqx.is_array)

        def step(carry, arrays):
            block, part = eqx.combine(arrays, static)
            return apply(block, carry, part)

        return jax.lax.scan(step, carry, arrays)
