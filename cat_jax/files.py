"""Files and folders that appear whole or not at all."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from cat_jax.errors import InputError


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


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of lines whole or not at all; missing parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
