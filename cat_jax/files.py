"""Files and folders that appear whole or not at all, on disks and in object stores."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from etils import epath

from cat_jax.errors import InputError, SaveFailed, SettingError

LONGEST_NAME = 200
"""Bytes of a folder's name: file systems take 255, and temporary names are longer."""
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def check_name(name: str, option: str) -> None:
    """Refuse a name that is not that of one new folder below another.

    Args:
        name: Name of the folder.
        option: What gives the name, for the message.

    Raises:
        InputError: The name is empty, ``.`` or ``..``, a path, too long, or not printable.
    """
    wrong = None
    if not name.strip():
        wrong = "is empty"
    elif name in (".", ".."):
        wrong = f"is {name!r}, which names an existing folder"
    elif "/" in name or "\\" in name:
        wrong = f"is {_shortened(name)}, a path"
    elif not name.isprintable():
        wrong = f"is {_shortened(name)}, which holds control characters or broken Unicode"
    elif len(name.encode()) > LONGEST_NAME:
        wrong = f"is {_shortened(name)}, longer than {LONGEST_NAME} bytes"
    if wrong is not None:
        raise InputError(f"{option} {wrong}; give the plain name of one folder")


def _shortened(name: str) -> str:
    shown = ascii(name)
    return shown if len(shown) <= 40 else f"{shown[:36]}...{shown[0]}"


def read_json(path: epath.Path, kind: type[Any], mend: str) -> Any:
    """Read a JSON file that this package wrote.

    Args:
        path: The file.
        kind: Type of its value.
        mend: What to do about a broken one, for the message.

    Raises:
        InputError: The file cannot be read, or is not JSON of this type.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {mend}") from None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # broken JSON or UTF-8
        reason = "it is empty" if not content.strip() else one_line(error)
        raise InputError(f"{path} is not valid JSON ({reason}); {mend}") from error
    if not isinstance(value, kind):
        raise InputError(f"{path} holds no JSON {_JSON_NAMES[kind]}; {mend}")
    return value


_JSON_NAMES = {dict: "object", list: "array"}


@contextmanager
def save_errors(kept: Callable[[], str], *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of writing in the block into SaveFailed; other bad input passes.

    Args:
        kept: Says what was saved before, as a clause.
        kinds: Errors of writing besides OSError.

    Raises:
        SaveFailed: Something could not be written.
    """
    try:
        yield
    except SaveFailed:
        raise
    except (OSError, InputError, *kinds) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        if cause is None or not isinstance(cause, (OSError, *kinds)):
            raise
        raise SaveFailed(f"writing failed ({one_line(error)}); {kept()}; {_mend(cause)}") from error


def _mend(error: BaseException) -> str:
    # Only the message of errors from native code tells what it was.
    if any(os.strerror(code) in str(error) for code in READ_ONLY):
        return "make the folder writable and resume"
    return "make room and resume"


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file whole or not at all; missing parent folders are made.

    Args:
        path: Local path, or that of an object store (``gs://...``).
        text: What to write.

    Raises:
        InputError: The path is a folder.
    """
    with _new_file(epath.Path(path)) as file:
        file.write(text.encode())


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes as ``write_text`` writes a text."""
    with _new_file(epath.Path(path)) as file:
        file.write(content)


def write_lines(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Write lines as ``write_text`` writes a text; they are held one at a time."""
    with _new_file(epath.Path(path)) as file:
        for line in lines:
            file.write(line.encode() + b"\n")


@contextmanager
def _new_file(path: epath.Path) -> Iterator[Any]:
    if "://" in str(path):  # object stores write whole objects, and have no folders
        with path.open("wb") as file:
            yield file
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write to that becomes ``target`` when the block ends without an error.

    Raises:
        InputError: ``target`` exists, or no folder can be made beside it.
    """
    refuse_existing(target)
    partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{target} cannot be made ({error.strerror}): choose another") from error
    try:
        yield partial
        refuse_existing(target)  # a rename onto an empty folder would succeed
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_writable(folder: str | os.PathLike[str], setting: str) -> None:
    """Check that a folder can be written to, or made; write nothing.

    Args:
        folder: Local path; object stores are not asked.
        setting: Setting that names it.

    Raises:
        SettingError: It is no folder, lies in no folder, or may not be written to.
    """
    reason = unwritable(folder)
    if reason is not None:
        raise SettingError(setting, f"is {folder}, but {reason}; choose another")


def unwritable(folder: str | os.PathLike[str]) -> str | None:
    """Return why a folder cannot be written to or made, as a clause; None if it can.

    Object stores are not asked.
    """
    if "://" in str(folder):
        return None
    path = Path(folder).absolute()
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)
    except (OSError, ValueError) as error:  # a name that is too long, or holds NUL
        return f"it is no path ({one_line(error)})"
    existing = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return None
    return f"{existing} is no folder to write to"


def refuse_existing(target: Path) -> None:
    """Raise InputError if there is something at ``target``."""
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} already exists: choose another name, or remove it first")
