"""Bits that beat at a fixed rate: discrete data whose probabilities are known exactly."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from sgm.data.simulated import AbstractSimulated


@dataclasses.dataclass(frozen=True)
class Heartbeat(AbstractSimulated):
    """Bits of which every `period`-th is 1, from one of the first `period` places on, all of them equally likely.

    An example is an image of a single row, so that whatever shows images shows beats.

    Arguments:
        length: Number of bits of an example.
        period: Number of places from one beat to the next.

    Raises:
        ValueError: for a setting out of range.

    Example:
        >>> data = Heartbeat(length=20, period=5)
        >>> data.examples.shape  # all that there are, each of probability 1/5
        (5, 1, 20, 1)

    Reference: Sohl-Dickstein et al. 2015 (arXiv:1503.03585, section 3.1.2), who have 20 bits of period 5.
    """

    length: int = 20
    period: int = 5
    levels: ClassVar[int | None] = 2

    def __post_init__(self):
        if not 1 < self.period <= self.length:
            raise ValueError(f"period is {self.period} of {self.length} bits: give at least 2, and at most all")

    @property
    def shape(self) -> tuple[int, ...]:
        return 1, self.length, 1

    @property
    def entropy(self) -> float:
        """The entropy -E log P(x) of the bits, in nats: the logarithm of the period."""
        return math.log(self.period)

    @property
    def examples(self) -> Int[np.ndarray, "period 1 length 1"]:
        """All examples that there are."""
        beats = np.arange(self.length) % self.period == np.arange(self.period)[:, None]
        return beats.astype(np.int32)[:, None, :, None]

    def exact_log_prob(self, x: np.ndarray, fields: Mapping[str, np.ndarray]) -> np.ndarray:
        same = np.all(np.asarray(x)[:, None] == self.examples, axis=(2, 3, 4))
        return np.where(np.any(same, axis=1), -self.entropy, -np.inf)

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[UInt8[Array, "n 1 length 1"], dict[str, Array]]:
        phase = jax.random.randint(key, (n,), 0, self.period)
        return jnp.asarray(self.examples, jnp.uint8)[phase], {}

    def figures(self, sde: Any, model: Any, draw: Callable[[Mapping[str, np.ndarray], int], Any]) -> dict[str, Any]:
        from sgm import plot  # here, since data are read where nothing is drawn

        count = 40
        panels = {"data": self.rows("train", 0, count)[0], "draws": np.asarray(draw({}, count))}
        flat = {name: np.asarray(x, np.float32).reshape(-1, self.length) for name, x in panels.items()}
        return {"heartbeat_samples": plot.rows(flat, "place")}
