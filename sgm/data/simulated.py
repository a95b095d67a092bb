"""Data drawn afresh by key, from a distribution that is known and so never runs out."""

import abc
import functools
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from sgm.data.base import AbstractDataset, Record, check_batch_size, check_split

_SPLIT_SIZE = 10_000
_STREAMS = {"batch": 0, "train": 1, "test": 2}


class AbstractSimulated(AbstractDataset):
    """A distribution. Training batches never repeat; the rows of a split are a fixed draw of 10,000, made once."""

    levels: ClassVar[int | None] = None

    @abc.abstractmethod
    def simulate(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n *shape"], dict[str, Array]]:
        """`n` independent examples and the fields of their condition: float32, or unsigned levels."""

    def size(self, split: str) -> int:
        check_split(split)
        return _SPLIT_SIZE

    def rows(self, split: str, start: int, stop: int) -> Record:
        check_split(split)
        x, fields = _fixed_draw(self, split)
        return x[start:stop], {name: values[start:stop] for name, values in fields.items()}

    def batch(self, step: int, batch_size: int, seed: int) -> Record:
        check_batch_size(batch_size)
        return _simulate(self, jax.random.fold_in(_key(seed, "batch"), step), batch_size)


def _key(seed: int, stream: str) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.key(seed), _STREAMS[stream])


@functools.lru_cache(maxsize=2)
def _fixed_draw(data: AbstractSimulated, split: str) -> Record:
    with jax.ensure_compile_time_eval():  # Another data set may ask for rows while its own simulation is traced.
        return _simulate(data, _key(0, split), _SPLIT_SIZE)


def _simulate(data: AbstractSimulated, key: PRNGKeyArray, n: int) -> Record:
    # NumPy's views of JAX arrays are read-only, so that no caller can change a draw that is kept.
    return jax.tree.map(np.asarray, _simulate_compiled(data, key, n))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _simulate_compiled(data: AbstractSimulated, key: PRNGKeyArray, n: int):
    return data.simulate(key, n)
