"""The end of a run that the machine asks for."""

import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """Training that was asked to end, by SIGTERM, and has saved its last step."""


class Preemption:
    """As a context, it takes SIGTERM for the wish that training ends after its next step.

    Of several processes, one that is asked is enough: they end at the same step. SIGTERM is left as it is in threads
    other than the main one.
    """

    def __init__(self):
        self._asked, self._before = False, None

    def __enter__(self) -> "Preemption":
        # JAX takes the signal itself where there are several processes.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def is_due(self, step: int) -> bool:
        """Whether training ends after this step, at which all processes ask."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True
