"""How long devices stand idle because the next batch is not there."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import jax

T = TypeVar("T")

# Below it nothing is said.
_SHOWN = 0.1


class Waits(Generic[T]):
    """Batches, and the share of time in which they were waited for.

    The loop runs ahead of the devices, so that it may wait for a batch while they still work. What counts is the time
    from the end of the last step on a device to the coming of the next batch. A thread takes the time of the former.

    Arguments:
        batches: Batches in order.
    """

    def __init__(self, batches: Iterator[T]):
        self._batches = batches
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="waits")
        self._asked_and_came: list[tuple[float, float]] = []
        self._ends: list[Future[float]] = []
        self._looked = time.perf_counter()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        asked = time.perf_counter()
        batch = next(self._batches)
        self._asked_and_came.append((asked, time.perf_counter()))
        return batch

    def stepped(self, result: jax.Array) -> None:
        """Note that a step was begun, one of whose results is given."""
        self._ends.append(self._thread.submit(_end, result))

    def share(self) -> float:
        """Share of the time since the last call, for which devices stood idle. The steps since then have ended."""
        now = time.perf_counter()
        before = [self._looked, *(end.result() for end in self._ends)]
        idle = sum(
            max(0.0, came - max(asked, end)) for (asked, came), end in zip(self._asked_and_came, before, strict=False)
        )
        share = idle / (now - self._looked)
        self._asked_and_came, self._ends, self._looked = [], [], now
        return share

    def text(self) -> str:
        """The share for a progress bar, where it is worth a word."""
        share = self.share()
        return f", waits for data {share:.0%}" if share > _SHOWN else ""


def _end(result: jax.Array) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()
