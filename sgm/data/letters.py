"""Letters, each of which depends on the one before: discrete data whose probabilities are known exactly."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, PRNGKeyArray, UInt8

from sgm.data.simulated import AbstractSimulated

ALPHABET = "etaoinshrdlucmfwypvbgkjqxz_"


@dataclasses.dataclass(frozen=True)
class Letters(AbstractSimulated):
    """Strings of a Markov chain on letters, which begins in its stationary distribution.

    After each letter some others are likely, chosen at random by the seed: the probabilities are Dirichlet, the smaller
    the `concentration` the fewer. An example has shape (length, 1).

    Arguments:
        length: Number of letters of an example.
        letters: Number of letters of the alphabet, at most 27.
        concentration: Concentration of each letter in the Dirichlet distribution.
        seed: Seed of the probabilities.

    Raises:
        ValueError: for a setting out of range.

    Example:
        >>> data = Letters(length=32)
        >>> x, _ = data.batch(0, 3, seed=0)
        >>> strings, log_probs = data.text(x), data.exact_log_prob(x, {})
    """

    length: int = 32
    letters: int = 27
    concentration: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if not 2 <= self.letters <= len(ALPHABET):
            raise ValueError(f"letters is {self.letters}: give at least 2, and at most {len(ALPHABET)}")
        if self.length < 1 or not self.concentration > 0:
            raise ValueError(
                f"length is {self.length} and concentration {self.concentration}: give one letter or more, and a "
                "concentration above 0"
            )

    @property
    def levels(self) -> int:
        """Number of letters."""
        return self.letters

    @property
    def shape(self) -> tuple[int, ...]:
        return self.length, 1

    @property
    def transitions(self) -> Float64[np.ndarray, "letters letters"]:
        """Probability of each letter after each other one; a row for each letter before."""
        drawn = np.random.default_rng(self.seed).gamma(self.concentration, size=(self.letters, self.letters)) + 1e-6
        return drawn / np.sum(drawn, axis=1, keepdims=True)

    @property
    def initial(self) -> Float64[np.ndarray, " letters"]:
        """Probability of each letter, the same at every place."""
        balance = np.vstack([self.transitions.T - np.eye(self.letters), np.ones(self.letters)])
        return np.linalg.lstsq(balance, np.append(np.zeros(self.letters), 1), rcond=None)[0]

    @property
    def entropy(self) -> float:
        """The entropy -E log P(x) of the letters, in nats: of the first, and of each given the one before."""
        initial, transitions = self.initial, self.transitions
        after = -np.sum(transitions * np.log(transitions), axis=1)
        return float(-np.sum(initial * np.log(initial)) + (self.length - 1) * np.sum(initial * after))

    def exact_log_prob(self, x: np.ndarray, fields: Mapping[str, np.ndarray]) -> np.ndarray:
        letters = np.asarray(x).reshape(len(x), self.length)
        steps = np.log(self.transitions)[letters[:, :-1], letters[:, 1:]]
        return np.log(self.initial)[letters[:, 0]] + np.sum(steps, axis=1)

    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[UInt8[Array, "n length 1"], dict[str, Array]]:
        initial, transitions = (jnp.asarray(np.log(part), jnp.float32) for part in (self.initial, self.transitions))
        key_first, key_rest = jax.random.split(key)
        first = jax.random.categorical(key_first, initial, shape=(n,))

        def after(before, key):
            letter = jax.random.categorical(key, transitions[before])
            return letter, letter

        _, rest = jax.lax.scan(after, first, jax.random.split(key_rest, self.length - 1))
        return jnp.concatenate([first[None], rest]).T[..., None].astype(jnp.uint8), {}

    def text(self, x: np.ndarray) -> list[str]:
        """Examples as strings."""
        return ["".join(ALPHABET[letter] for letter in row) for row in np.asarray(x).reshape(len(x), -1)]

    def figures(self, sde: Any, model: Any, draw: Callable[[Mapping[str, np.ndarray], int], Any]) -> dict[str, Any]:
        from sgm import plot  # here, since data are read where nothing is drawn

        panels = {"data": self.rows("train", 0, 24)[0], "draws": np.asarray(draw({}, 24))}
        lines = {}
        for name, x in panels.items():
            bits = -self.exact_log_prob(x, {}) / math.log(2) / self.length
            lines[f"{name}, {np.mean(bits):.2f} bits a letter under the truth"] = self.text(x)
        return {"letters": plot.strings(lines)}
