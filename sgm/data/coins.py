"""Coins of which a fixed number shows heads: discrete data whose probabilities are known exactly."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt8

from sgm.data.simulated import AbstractSimulated


@dataclasses.dataclass(frozen=True)
class Coins(AbstractSimulated):
    """`heads` of `coins` coins show heads (level 1), the others tails (level 0), every such outcome equally likely.

    Two coins have a correlation of only -1 / (coins - 1), so that what there is to learn is the sum of all. By default
    the entropy is 0.7504 bits a coin, and the best model of independent coins has 0.8113. An example is an image of a
    single row, so that whatever shows images shows coins.

    Arguments:
        coins: Number of coins of an example.
        heads: Number of coins that show heads.

    Raises:
        ValueError: for a setting out of range.

    Example:
        >>> data = Coins(coins=48, heads=36)
        >>> print(f"{data.entropy / np.log(2) / 48:.4f} bits a coin")
        0.7504 bits a coin

    Reference: the example ex_coins of github.com/tonyduan/diffusion, 2023.
    """

    coins: int = 48
    heads: int = 36
    levels: ClassVar[int | None] = 2

    def __post_init__(self):
        if not 0 < self.heads < self.coins:
            raise ValueError(f"heads is {self.heads} of {self.coins} coins: give at least one, and fewer than all")

    @property
    def shape(self) -> tuple[int, ...]:
        return 1, self.coins, 1

    @property
    def entropy(self) -> float:
        """The entropy -E log P(x) of the levels, in nats: the logarithm of the number of outcomes."""
        return math.log(math.comb(self.coins, self.heads))

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[UInt8[Array, "n 1 coins 1"], dict[str, Array]]:
        heads_first = (jnp.arange(self.coins) < self.heads).astype(jnp.uint8)
        ordered = jnp.broadcast_to(heads_first[:, None], (n, *self.shape))
        return jax.random.permutation(key, ordered, axis=2, independent=True), {}
