"""The grid of solvers of diffusers along a chain that ends in pure noise."""

import math

import equinox as eqx
import jax.numpy as jnp

from sgm.solve.grid import AbstractGrid, LogSNRGrid

FIRST = 4096.0
"""sigma/alpha at which these solvers begin, where alpha^2 = 2^-24."""


class RaisedGrid(AbstractGrid):
    """The levels of another grid that begins at sigma/alpha = 4096, the first of them raised to that of the process.

    So a process that begins at pure noise has the levels of one that begins just below it.

    Arguments:
        inner: Grid of the levels.

    Example:
        >>> method = sgm.DDIM(19, grid=RaisedGrid(sgm.solve.KarrasGrid()))
    """

    inner: AbstractGrid = LogSNRGrid()

    def levels(self, sde, steps):
        first = jnp.minimum(sde.t1, sde.time(jnp.asarray(math.log(FIRST))))
        below = eqx.tree_at(lambda sde: sde.t1, sde, first)
        return self.inner.levels(below, steps).at[0].set(sde.level(sde.t1))
