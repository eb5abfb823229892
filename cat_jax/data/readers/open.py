"""From a source to its items: which reader reads it."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cat_jax.data.readers.json_items import read_json_lines, read_json_list
from cat_jax.data.readers.named import (
    HUB,
    TFDS,
    hub_parts,
    is_saved,
    read_hub,
    read_saved,
    read_tfds,
    tfds_parts,
)
from cat_jax.data.readers.tables import read_parquet, read_separated
from cat_jax.errors import InputError

Items = Iterator[tuple[str, Any]]

COMPRESSED = (".gz", ".zst")
READERS = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json_list,
    ".csv": partial(read_separated, kind="csv"),
    ".tsv": partial(read_separated, kind="tsv"),
    ".parquet": read_parquet,
}
ENDINGS = f"{', '.join(READERS)} (text also {' or '.join(COMPRESSED)})"


def open_items(source: str | os.PathLike[str] | Iterable[Any]) -> Items:
    """Yield the items of a source with their places.

    Args:
        source: File, folder of files or of a saved data set (of several splits ``FOLDER:SPLIT``),
            ``hub:REPO[@REVISION][:CONFIG]:SPLIT``, ``tfds:NAME/CONFIG:SPLIT``, or an iterable.

    Raises:
        InputError: It cannot be read; from the iterator too.
    """
    if not isinstance(source, str | os.PathLike):
        if isinstance(source, Mapping):
            raise InputError(
                f"the source is a mapping with {', '.join(map(str, source))}; give the records of "
                "one of them, as a list of dicts"
            )
        return ((f"record {number}", item) for number, item in enumerate(source, 1))
    name = os.fspath(source)
    if not name.strip():
        raise InputError("the name of a data set is empty; name a file, a folder or hub:REPO:SPLIT")
    if name.startswith(HUB):
        return read_hub(name)
    if name.startswith(TFDS):
        return read_tfds(name)
    return _read_path(name)


def source_name(source: str) -> str:
    """Return a short name of a file or named data set, such as for a report.

    ``data/ood.jsonl.gz`` is "ood", ``hub:openai/gsm8k:main:test`` is "gsm8k-main-test".

    Raises:
        InputError: A name on a hub is malformed.
    """
    if source.startswith(HUB):
        repository, config, split, _ = hub_parts(source)
        parts = [repository.rpartition("/")[2], config, split]
    elif source.startswith(TFDS):
        parts = [*tfds_parts(source)]
    else:
        folder, split = _saved_split(source)
        return "-".join(part for part in (_stem(folder), split) if part)
    return re.sub(r"[^\w.+-]+", "-", "-".join(part for part in parts if part))


def _stem(path: Path) -> str:
    name = path.name
    for ending in (*COMPRESSED, *READERS):
        name = name.removesuffix(ending)
    return name


def _saved_split(name: str) -> tuple[Path, str | None]:
    """Return folder and split of ``FOLDER:SPLIT``, or the path itself."""
    folder, _, split = name.rpartition(":")
    if split and folder and not os.path.lexists(name) and os.path.isdir(folder):
        return Path(folder), split
    return Path(name), None


def _read_path(name: str) -> Items:
    try:
        path, split = _saved_split(name)
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:  # too long, or with NUL
        raise InputError(f"cannot read {name!r}: {error}; check the path") from error
    if split is not None or (is_folder and is_saved(path)):
        return read_saved(path, split)
    return _read_folder(path) if is_folder else _read_file(path)


def _read_folder(folder: Path) -> Items:
    """Yield the items of all data files of a folder, in the order of their names."""
    try:
        files = sorted(x for x in folder.iterdir() if x.is_file() and not x.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}; check the path") from error
    if any(file.suffix == ".array_record" for file in files):
        raise InputError(
            f"{folder} holds prepared shards, which have no texts; train on them (cat.fit, "
            "--data.train), or name the data that they were made of"
        )
    known = [file for file in files if _reader(file) is not None]
    if not known:
        raise InputError(f"{folder} holds no data file; name a file that ends in {ENDINGS}")
    for file in known:
        yield from _read_file(file)


def _read_file(path: Path) -> Items:
    reader = _reader(path)
    if reader is None:
        raise InputError(f"{path}: an unknown kind of file; name a file that ends in {ENDINGS}")
    return reader(path)


def _reader(path: Path) -> Any:
    plain = path.with_suffix("") if path.suffix in COMPRESSED else path
    if plain.suffix == ".parquet" and plain != path:
        return None  # which is compressed within
    return READERS.get(plain.suffix)
