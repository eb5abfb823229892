"""Files and folders that appear whole or not at all, on disks and in object stores."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from etils import epath

from cat_jax.errors import InputError


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file whole or not at all; missing parent folders are made.

    Args:
        path: Local path, or that of an object store (``gs://...``).
        text: What to write.
    """
    with _new_file(epath.Path(path)) as file:
        file.write(text.encode())


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


def refuse_existing(target: Path) -> None:
    """Raise InputError if there is something at ``target``."""
    if target.exists() or target.is_symlink():
        raise InputError(f"{target} already exists: choose another name, or remove it first")
