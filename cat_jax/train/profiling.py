"""A trace of a few steps, to see where their time goes."""

from typing import Any

import jax

SKIPPED, TRACED = 2, 3
"""Steps of this process before the trace (they compile and warm up), and in it."""


class StepTrace:
    """Traces steps into a folder that xprof and TensorBoard read; without one it does nothing."""

    def __init__(self, folder: str | None, first_step: int):
        """Takes the step that this process starts from."""
        self._folder = folder
        self._first = first_step + SKIPPED
        self._running = False

    def before(self, step: int, state: Any) -> None:
        """To be called before the step after ``step``, which made ``state``."""
        if self._folder is not None and step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step == self._first + TRACED:
            self.end(state)

    def end(self, state: Any) -> None:
        """Writes the trace, of fewer steps if no more were taken."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False
