"""Reading and writing of data sets."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cat_jax.data.conversations import Conversation, TrainingRecord
from cat_jax.data.formats import TEMPLATE_OPTIONS, parse_items
from cat_jax.data.messages import message_fields
from cat_jax.data.readers import open_items
from cat_jax.data.records import Record, record_fields
from cat_jax.errors import InputError
from cat_jax.files import write_lines

Source = str | os.PathLike[str] | Iterable[Mapping[str, Any] | TrainingRecord]
"""File, folder, name on a hub, or an iterable of dicts or records (a list, a ``Dataset``)."""


def read_records(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> list[TrainingRecord]:
    """Read records for training or evaluation.

    The fields say which format they have, and so what is trained: the target of ``{"input",
    "target"}``, all that the assistant says of ``{"messages"}``, every token of ``{"text"}``, and
    more (``cat_jax.data.formats``). All records have one format. ``important`` is optional, and
    None (``null``) is a missing field: ``datasets`` fills fields so that other items have. Fields
    of other names are ignored, unless they look like one of these misspelt.

    Text may be a number: as a JSONL file spells it (84.0 stays "84.0"), else as ``str`` does.

    Args:
        source: One of (docs/data.md, Sources)

            - a file of JSON lines, JSON, CSV, TSV or Parquet, text perhaps compressed (``.gz``,
              ``.zst``), or a folder of such files;
            - a folder that ``datasets`` saved, of several splits as ``FOLDER:SPLIT``;
            - ``hub:REPO[@REVISION][:CONFIG]:SPLIT``, a data set on the Hugging Face hub;
            - ``tfds:NAME/CONFIG:SPLIT``, a data set of tensorflow-datasets;
            - an iterable of dicts, such as a list or a ``datasets.Dataset``. Its items may be
              ``Record`` and ``Conversation`` objects, which are returned as they are.
        columns: Names of the columns of fields that are called otherwise in the source, such as
            ``{"input": "question", "important": "causes"}``. Where they name all fields of a
            format, it is that one, and fields of other formats are ignored.
        template_options: Variables of the chat template for the conversations, such as
            ``{"enable_thinking": False}``, and the ``date`` that it prints
            (``cat_jax.data.template_options``).

    Raises:
        InputError: A source that cannot be read, no records, a record of another form, or template
            options where nothing is a conversation; the message names the file and line or row, or
            the number of the record (from 1), and the field.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "the source"
    records = list(parse_items(open_items(source), columns))
    if not records:
        raise InputError(f"{name} holds no records; add at least one")
    return with_template_options(records, template_options, name) if template_options else records


def with_template_options(
    records: Iterable[TrainingRecord], options: Mapping[str, Any], name: str
) -> list[TrainingRecord]:
    """Return the records, the conversations with these options besides their own.

    Raises:
        InputError: An option that is none, or no record is a conversation.
    """
    chosen = [
        replace(record, template_options={**options, **record.template_options})
        if isinstance(record, Conversation)
        else record
        for record in records
    ]
    if not any(isinstance(record, Conversation) for record in chosen):
        raise InputError(
            f"{name} holds no conversation, so no chat template is used; leave out the template "
            "options"
        )
    return chosen


def write_records(path: str | Path, records: Iterable[TrainingRecord]) -> None:
    """Write a JSONL file that ``read_records`` reads back; it appears whole or not at all.

    Raises:
        InputError: The file cannot be written, or records and conversations are mixed.
    """
    try:
        lines = (json.dumps(fields) for fields in data_set_fields(records))
        write_lines(Path(path), lines)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; check the folder") from error


def data_set_fields(records: Iterable[TrainingRecord]) -> Iterator[dict[str, Any]]:
    """Yield the fields of each record, which ``parse_items`` reads.

    Raises:
        InputError: Records and conversations are mixed, which have different formats.
    """
    first = None
    for record in records:
        first = first or type(record)
        if not isinstance(record, first):
            raise InputError(
                "records and conversations cannot be written to one file, which has one format; "
                "write two"
            )
        yield training_record_fields(record)


def training_record_fields(record: TrainingRecord) -> dict[str, Any]:
    """Return the fields of a record or conversation."""
    if isinstance(record, Record):
        return record_fields(record)
    fields: dict[str, Any] = {"messages": [message_fields(m) for m in record.messages]}
    if record.tools:
        fields["tools"] = list(record.tools)
    if record.template_options:
        fields[TEMPLATE_OPTIONS] = dict(record.template_options)
    return fields
