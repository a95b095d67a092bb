"""What the processes of a run tell each other while they write a checkpoint."""

import itertools
import json
import sys
from typing import Any

import jax
from jax._src import distributed  # JAX has no public name for its client, by which processes speak without devices.

_numbers = itertools.count()


class WriterFailed(Exception):
    """A process of the run cannot write its part of a checkpoint."""


class Writers:
    """The places at which the writers of all processes wait for each other, as Orbax asks for them.

    Orbax would let the others wait for a writer that fails until the time is over. But it leaves out a place, and comes
    to the next one, so that those who meet there find that they are not at the same place.
    """

    def __init__(self):
        self._name, self._places, self._failure = f"sgm/writers/{next(_numbers)}", 0, ""

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        """Wait for all at the place `key`. Raise `WriterFailed` where one is at another."""
        if self._failure:
            raise WriterFailed(self._failure)
        client: Any = distributed.global_state.client
        place, error = f"{self._name}/{self._places}", sys.exc_info()[1]
        client.key_value_set(f"{place}/{jax.process_index()}", json.dumps([key, str(error)]))
        client.wait_at_barrier(place, timeout_ms)
        said = {int(name.rpartition("/")[2]): json.loads(value) for name, value in client.key_value_dir_get(place)}
        if len({theirs for theirs, _ in said.values()}) > 1:
            late = [index for index, (theirs, _) in said.items() if theirs.endswith("set_value_start")]
            self._failure = "; ".join(f"process {index}: {said[index][1]}" for index in sorted(late))
            raise WriterFailed(self._failure)
        if self._places:  # All have read what was said at the place before.
            client.key_value_delete(f"{self._name}/{self._places - 1}/{jax.process_index()}")
        self._places += 1
