"""Records from wherever they are."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cat_jax.data.conversations import TrainingRecord, parse_training_record
from cat_jax.data.records import read_lines
from cat_jax.errors import InputError


def read_records(source: str | Path | Iterable[Mapping[str, Any]]) -> list[TrainingRecord]:
    """Read training or test records; the fields of each say which of three kinds it is.

    ``{"input", "target"}`` trains the target, ``{"messages"}`` all that the assistant says, and
    ``{"text"}`` every token. ``important`` may be missing; fields of other names are ignored,
    unless they look like one of these misspelt.

    Args:
        source: A JSONL file, or dicts (a list, a ``datasets.Dataset``).

    Raises:
        InputError: A file that cannot be read, no records, or a record of another form; the
            message names file, line (or record) and field.
    """
    if isinstance(source, str | Path):
        found = [parse_training_record(row, where) for where, row in read_lines(source)]
        name = str(source)
    else:
        found = [
            row
            if isinstance(row, TrainingRecord)
            else parse_training_record(dict(row), f"record {number}")
            for number, row in enumerate(source, 1)
        ]
        name = "the source"
    if not found:
        raise InputError(f"{name} holds no records; each line is one JSON object")
    return found
