"""Ctrl-C and SIGTERM as a request that the loop honours between two steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point

Result = TypeVar("Result")


class _GivenUp(BaseException):
    """No Exception, or what is given up might catch it."""


@dataclass
class StopRequest:
    """Which signal asked to stop, if any has."""

    signum: int | None = None
    _raises: bool = False

    def at(self, step: int) -> bool:
        """Whether to stop after ``step``: ask at every step, in every process.

        Several processes agree: SIGTERM to one of them stops all after the same step, which is
        the next that none of them has begun.
        """
        if jax.process_count() > 1 and reached_preemption_sync_point(step):
            self.signum = signal.SIGTERM
        return self.signum is not None

    def unless_stopped(self, work: Callable[[], Result]) -> Result | None:
        """The result of ``work``, or None as soon as a signal has come."""
        self._raises = True
        try:
            return None if self.signum else work()
        except _GivenUp:
            return None
        finally:
            self._raises = False

    def note(self, signum: int) -> None:
        """Takes a request down."""
        self.signum = signum
        if self._raises:
            raise _GivenUp


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catches SIGINT and SIGTERM inside the block; the second one acts at once.

    Of several processes none may act alone: SIGTERM is left to ``jax.distributed``, which tells
    the others, and SIGINT ends the process at once.
    """
    request = StopRequest()
    previous = {}

    def restore() -> None:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def handle(signum, _frame) -> None:
        restore()
        request.note(signum)

    if jax.process_count() == 1:
        for signum in (signal.SIGINT, signal.SIGTERM):
            previous[signum] = signal.signal(signum, handle)
    try:
        yield request
    finally:
        restore()
