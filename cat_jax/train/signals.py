"""Ctrl-C and SIGTERM as a request to stop, honoured between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point

Result = TypeVar("Result")


class _GivenUp(BaseException):
    """No Exception, or the abandoned work might catch it."""


@dataclass
class StopRequest:
    """The signal that asked to stop, if any."""

    signum: int | None = None
    _raises: bool = False

    def at(self, step: int) -> bool:
        """Tell whether to stop after ``step``; to be asked at every step, in every process.

        Several processes agree: SIGTERM to one of them stops all after the same step, the next
        that none of them has begun.
        """
        if jax.process_count() > 1 and reached_preemption_sync_point(step):
            self.signum = signal.SIGTERM
        return self.signum is not None

    def unless_stopped(self, work: Callable[[], Result]) -> Result | None:
        """Return the result of ``work``, or None as soon as a signal comes."""
        self._raises = True
        try:
            return None if self.signum else work()
        except _GivenUp:
            return None
        finally:
            self._raises = False

    def note(self, signum: int) -> None:
        """Note a request to stop."""
        self.signum = signum
        if self._raises:
            raise _GivenUp


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM inside the block; the second one acts at once.

    Of several processes none may act alone: SIGTERM is left to ``jax.distributed``, which tells
    the others, and SIGINT ends the process at once. Threads other than the main one get no
    signals.
    """
    request = StopRequest()
    previous = {}

    def restore() -> None:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def handle(signum, _frame) -> None:
        restore()
        request.note(signum)

    is_main = threading.current_thread() is threading.main_thread()
    if jax.process_count() == 1 and is_main:
        for signum in (signal.SIGINT, signal.SIGTERM):
            previous[signum] = signal.signal(signum, handle)
    try:
        yield request
    finally:
        restore()
