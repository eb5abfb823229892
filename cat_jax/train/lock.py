"""The lock of a workdir: one process at a time writes to it.

The operating system locks a file in the workdir (``flock``), which ends with the process, however
it ends. On shared file systems such a lock may hold on one machine only, and object stores have
none: therefore the file also names its holder, who renews a time in it while it lives (a lease).
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from etils import epath

from cat_jax.errors import InputError
from cat_jax.files import one_line

LOCK_FILE = "run.lock"
SIZE = 1024
"""Bytes of the file."""
RENEW_SECONDS = 10
EXPIRY_SECONDS = 60
"""Age from which a lease that was not renewed is that of a dead process."""
FULL = (errno.ENOSPC, errno.EDQUOT)
SETTLE_SECONDS = 1.0
"""Time in which another process that took the same lease at the same moment has written it."""


class InUse(InputError):
    """Another process holds the workdir."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a workdir.

    Attributes:
        pid: Process id.
        host: Name of the machine, for people.
        machine: Boot and process namespace in which ``pid`` means something.
        since: When it took the workdir, in seconds since 1970.
        renewed: When it last said that it lives.
        token: Tells two leases of one process apart.
    """

    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=lambda: _machine())
    since: float = field(default_factory=time.time)
    renewed: float = field(default_factory=time.time)
    token: str = field(default_factory=lambda: uuid4().hex)

    def is_alive(self, *, locks: bool) -> bool:
        """Tell whether the process still runs, as far as that can be known.

        Args:
            locks: This process got the lock of the operating system, which a live one on the same
                machine would hold.
        """
        if time.time() - self.renewed > EXPIRY_SECONDS:
            return False
        if self.machine == _machine():
            return not locks and _exists(self.pid)
        return True

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


def check_free(workdir: epath.Path) -> None:
    """Raise InputError if another process holds the workdir; write nothing."""
    path = workdir / LOCK_FILE
    if _is_remote(path):
        _refuse_alive(workdir, _read(path), locks=False)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (OSError, ValueError):  # no such file, or what the first write will say
        return
    try:
        _check_lock(workdir, descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


@contextmanager
def hold_workdir(workdir: epath.Path, file: str = LOCK_FILE) -> Iterator[None]:
    """Hold the workdir, which is made if missing, until the block ends.

    Args:
        workdir: Folder to hold.
        file: Name of the lock file; others in the folder are other locks.

    Raises:
        InUse: Another process holds it.
        InputError: It cannot be made.
        OSError: The folder cannot be written.
    """
    _make(workdir)
    path, holder = workdir / file, Holder()
    with ExitStack() as stack:
        if _is_remote(path):
            _refuse_alive(workdir, _read(path), locks=False)
            write, locks = path.write_text, False
        else:
            descriptor, locks = _open_locked(path)
            stack.callback(os.close, descriptor)
            write = partial(_overwrite, descriptor)
        stack.callback(_remove, path, holder)
        write(_encoded(holder))
        if not locks:  # two may have seen it free; the later one stays
            time.sleep(SETTLE_SECONDS)
            if not _is_ours(path, holder):
                _refuse(workdir, _read(path))
        stack.enter_context(_renewing(path, write, holder))
        yield


def _make(workdir: epath.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        reason = one_line(error)
        raise InputError(f"{workdir} cannot be made ({reason}); choose another folder") from None


def _open_locked(path: epath.Path) -> tuple[int, bool]:
    """Open and lock the local lock file; return its descriptor and whether locks exist here."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locks = _check_lock(path.parent, descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor, locks
        os.close(descriptor)  # the last holder removed the file between the two calls


def _check_lock(workdir: epath.Path, descriptor: int, kind: int) -> bool:
    """Lock an open file; return whether the file system has locks.

    Raises:
        InputError: Another process holds the workdir.
    """
    locks = True
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        _refuse(workdir, _decoded(os.pread(descriptor, SIZE, 0)))
    except OSError:
        locks = False
    _refuse_alive(workdir, _decoded(os.pread(descriptor, SIZE, 0)), locks=locks)
    return locks


def _refuse_alive(workdir: epath.Path, holder: Holder | None, *, locks: bool) -> None:
    if holder is not None and holder.is_alive(locks=locks):
        _refuse(workdir, holder)


def _refuse(workdir: epath.Path, holder: Holder | None) -> NoReturn:
    message = f"{workdir} is in use by {holder or 'another process'}"
    if holder is not None and holder.machine != _machine():
        silent = max(0, round(time.time() - holder.renewed))
        message += f" (last seen {silent} s ago; after {EXPIRY_SECONDS} s it counts as dead)"
    raise InUse(f"{message}; wait until it ends, stop it, or choose another folder")


@contextmanager
def _renewing(path: epath.Path, write: Callable[[str], object], holder: Holder) -> Iterator[None]:
    """Renew the lease in a thread while the block runs, unless another process took it over."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_SECONDS):
            if not _is_ours(path, holder):  # this process was stopped for so long
                continue
            with suppress(Exception):  # a full disk is told where the run writes
                write(_encoded(replace(holder, renewed=time.time())))

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _remove(path: epath.Path, holder: Holder) -> None:
    if _is_ours(path, holder):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _is_ours(path: epath.Path, holder: Holder) -> bool:
    """Tell whether the lease that stands in the file is not another's."""
    found = _read(path)
    return found is None or found.token == holder.token


def _overwrite(descriptor: int, text: str) -> None:
    os.pwrite(descriptor, text.encode(), 0)


def _encoded(holder: Holder) -> str:
    return json.dumps(asdict(holder)).ljust(SIZE)  # of one size: readers never see half of two


def _decoded(text: bytes | str) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):  # not written yet
        return None


def _read(path: epath.Path) -> Holder | None:
    try:
        return _decoded(path.read_text())
    except (OSError, ValueError):
        return None


def _is_remote(path: epath.Path) -> bool:
    return "://" in str(path)


def _machine() -> str:
    """Return what tells whether a process id means something here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
