"""A profiler trace of a few steps."""

from typing import Any

import jax

SKIPPED, TRACED = 2, 3
"""Steps before the trace, which compile and warm up, and steps in it."""


class StepTrace:
    """Trace steps into a folder that xprof and TensorBoard read; without one do nothing."""

    def __init__(self, folder: str | None, first_step: int):
        """Take the step that this process starts from."""
        self._folder = folder
        self._first = first_step + SKIPPED
        self._running = False

    def before(self, step: int, state: Any) -> None:
        """Start or end the trace before the step after ``step``, which made ``state``."""
        if self._folder is not None and step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif step == self._first + TRACED:
            self.end(state)

    def end(self, state: Any) -> None:
        """Write the trace, of fewer steps if no more were taken."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False
