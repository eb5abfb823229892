"""Reading and writing of data sets."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cat_jax.data.conversations import (
    TrainingRecord,
    parse_training_record,
    training_record_fields,
)
from cat_jax.data.records import JsonNumber
from cat_jax.errors import InputError
from cat_jax.files import write_lines

Source = str | os.PathLike[str] | Iterable[Mapping[str, Any] | TrainingRecord]
"""JSONL file, or an iterable of dicts or records, such as a list or a ``datasets.Dataset``."""


def read_records(source: Source) -> list[TrainingRecord]:
    """Read records for training or evaluation.

    The fields of each say what is trained: the target of ``{"input", "target"}``, all that the
    assistant says of ``{"messages"}``, every token of ``{"text"}``. ``important`` is optional, and
    None (``null``) is a missing field: ``datasets`` fills fields so that other items have. Fields
    of other names are ignored, unless they look like one of these misspelt.

    Text may be a number: as a JSONL file spells it (84.0 stays "84.0"), else as ``str`` does.

    Args:
        source: JSONL file, or an iterable of dicts (a list, a ``datasets.Dataset``). Its items may
            be ``Record`` and ``Conversation`` objects, which are returned as they are.

    Raises:
        InputError: A file that cannot be read, no records, or a record of another form; the
            message names the file and line, or the number of the record (from 1), and the field.
    """
    if isinstance(source, str | os.PathLike):
        items, name = _read_jsonl(Path(source)), str(source)
    else:
        items = ((f"record {number}", item) for number, item in enumerate(source, 1))
        name = "the source"
    records = [_record(item, where) for where, item in items]
    if not records:
        raise InputError(f"{name} holds no records; add at least one")
    return records


def write_records(path: str | Path, records: Iterable[TrainingRecord]) -> None:
    """Write a JSONL file that ``read_records`` reads back; it appears whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        lines = (json.dumps(training_record_fields(record)) for record in records)
        write_lines(Path(path), lines)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; check the folder") from error


def _record(item: Any, where: str) -> TrainingRecord:
    if isinstance(item, TrainingRecord):
        return item
    if not isinstance(item, Mapping):
        raise InputError(
            f"{where}: expected a dict such as {{'input': .., 'target': ..}}, "
            f"not {type(item).__name__}"
        )
    return parse_training_record(item, where)


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of all lines that are not blank, each with its place."""
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows mark a file's beginning
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parse_line(line, where)


def _parse_line(line: str, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise InputError(f"{where}, field {repeated[0]!r}: occurs twice; remove one")
        return dict(pairs)

    try:
        fields = json.loads(
            line, parse_int=JsonNumber, parse_float=JsonNumber, object_pairs_hook=unique
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error}); write one object a line") from error
    if not isinstance(fields, dict):
        raise InputError(f"{where}: expected one JSON object with 'input' and 'target'")
    return fields
