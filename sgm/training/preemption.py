"""The end of a run that the machine asks for."""

import signal
import threading
from typing import Any

import jax
from jax._src import distributed  # JAX has no public name for the part of it that hears SIGTERM in any process.
from jax.experimental import multihost_utils


class Preempted(Exception):
    """Training that was asked to end, by SIGTERM, and has saved its last step."""


class Preemption:
    """As a context, it takes SIGTERM for the wish that training ends after its next step.

    Of several processes, one that is asked is enough: they end at the same step. SIGTERM is left as it is in threads
    other than the main one, and after the context.
    """

    def __init__(self):
        self._asked, self._before, self._listens = False, None, False

    def __enter__(self) -> "Preemption":
        self._listens = threading.current_thread() is threading.main_thread()
        if not self._listens:
            return self
        self._before = signal.signal(signal.SIGTERM, self._ask)
        if jax.process_count() > 1:  # JAX takes the signal, and agrees with the other processes on a step.
            jax.config.update("jax_enable_preemption_service", True)
            distributed.global_state.initialize_preemption_sync_manager()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not self._listens:
            return
        if jax.process_count() > 1:
            manager: Any = distributed.global_state.preemption_sync_manager
            manager.shutdown()
            distributed.global_state.preemption_sync_manager = None
            jax.config.update("jax_enable_preemption_service", False)
        signal.signal(signal.SIGTERM, self._before)

    def is_due(self, step: int) -> bool:
        """Whether training ends after this step, at which all processes ask."""
        if jax.process_count() == 1 or not self._listens:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True
