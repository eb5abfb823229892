"""A disk that is full, or read-only, from some write on."""

import errno
import os
import sys
from contextlib import contextmanager

from small_runs import RECORDS, run

VALIDATION = RECORDS[:5]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_full = None


class FullDisk:
    """Below a folder, whatever Python opens to write, makes or renames fails after ``room``.

    Attributes:
        events: What was written so far, as (kind, path).
    """

    def __init__(self, folder, room=None, code=errno.ENOSPC):
        self.folder, self.room, self.code = str(folder), room, code
        self.events = []

    def see(self, event, arguments):
        path = arguments[0]
        is_write = event in ("os.mkdir", "os.rename") or (
            event == "open" and (arguments[2] or 0) & _WRITING
        )
        if not is_write or not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        if not path.startswith(self.folder):
            return
        if self.room is not None and len(self.events) >= self.room:
            raise OSError(self.code, os.strerror(self.code), path)
        self.events.append((event, path.removeprefix(self.folder)))


@contextmanager
def full_disk(disk):
    """Let a disk fail in the block."""
    global _full
    _full = disk
    try:
        yield disk
    finally:
        _full = None


def error_of_run(workdir, room, code):
    """Return the error with which a run ends on such a disk, None if it does not.

    Threads of orbax fail too, some of them later: this belongs in a process of its own.
    """
    with full_disk(FullDisk(workdir.parent, room, code)):
        try:
            run(workdir=workdir, validation=VALIDATION)
        except Exception as error:
            return type(error)(str(error))


def _hook(event, arguments):
    if _full is not None and event in ("open", "os.mkdir", "os.rename"):
        _full.see(event, arguments)


sys.addaudithook(_hook)  # for good: Python removes none
