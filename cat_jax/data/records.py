"""Records: a prompt, its answer, and which words the answer depends on.

Source: CAT (Han et al., EMNLP 2025). A JSONL file holds one record a line::

    {"input": "Weight: 1, Smoking: 8 Answer: ", "target": "High Risk",
     "important": [{"High Risk": ["Smoking: 8", {"text": "1", "start": 8}]}]}

A cause with ``start`` stands at that character of input + target; without, its words are
searched for. An effect with ``start`` takes the longer form
``{"effect": {"text": "High Risk", "start": 30}, "causes": [...]}``.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cat_jax.errors import InputError


@dataclass(frozen=True)
class Span:
    """Words of a record's text.

    Attributes:
        text: the words.
        start: character offset into ``Record.text``; None means "find them".
    """

    text: str
    start: int | None = None


@dataclass(frozen=True)
class Annotation:
    """An effect and the causes it may attend to."""

    effect: Span
    causes: tuple[Span, ...]


@dataclass(frozen=True)
class Record:
    """One training or test row; ``text`` is what a model reads.

    Raises:
        InputError: the words of a span do not stand at its ``start``.
    """

    input: str
    target: str
    important: tuple[Annotation, ...] = field(default=())

    def __post_init__(self):
        text = self.text
        for note in self.important:
            for span in (note.effect, *note.causes):
                start = span.start
                if start is not None and (start < 0 or not text.startswith(span.text, start)):
                    raise InputError(
                        f"the words {span.text!r} do not stand at character {start} of "
                        "input + target; correct 'start', or leave it out to search for them"
                    )

    @property
    def text(self) -> str:
        """The prompt followed by the answer."""
        return self.input + self.target


class _Number(str):
    """A JSON number as the file spells it: a target of 84.0 is the text "84.0"."""


def read_jsonl(path: str | Path) -> list[Record]:
    """Reads records; ``important`` may be missing, and fields of other names are ignored.

    The published files parse: numbers where text is meant, one dict instead of a list of
    one-key dicts, one cause outside a list, and causes that are effects with causes in turn.

    Raises:
        InputError: a missing or unreadable file, a line that is no JSON object, a missing field,
            or a field of another kind; the message names file, line and field.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    lines = enumerate(text.split("\n"), 1)
    return [_parse_line(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def write_jsonl(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as ``read_jsonl`` reads them: the whole file appears at once, or none of it.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + f".{os.getpid()}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_row(record)) + "\n" for record in records)
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; check the folder") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _parse_line(line: str, where: str) -> Record:
    try:
        row = json.loads(line, parse_int=_Number, parse_float=_Number)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error}); write one object a line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected one JSON object with 'input' and 'target'")
    for name in ("input", "target"):
        if name not in row:
            raise InputError(f"{where}: the field {name!r} is missing; add it")
        if not isinstance(row[name], str):
            raise InputError(f"{where}: the field {name!r} must be text or a number")
    important = tuple(_annotations(row.get("important"), f"{where}, field 'important'"))
    try:
        return Record(str(row["input"]), str(row["target"]), important)
    except InputError as error:
        raise InputError(f"{where}, field 'important': {error}") from error


def _annotations(value: Any, where: str) -> Iterator[Annotation]:
    if value is None:
        return
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict):
            raise InputError(f"{where}: expected {{effect: [causes]}}, not {json.dumps(entry)}")
        if entry.keys() == {"effect", "causes"} and not isinstance(entry["effect"], list):
            entries = [(entry["effect"], entry["causes"])]
        else:
            entries = list(entry.items())
        for effect, causes in entries:
            yield Annotation(_span(effect, where), tuple(_causes(causes, where)))
            if isinstance(causes, dict):
                yield from _annotations(causes, where)


def _causes(value: Any, where: str) -> Iterator[Span]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | dict):
        raise InputError(f"{where}: causes must be a list, not {json.dumps(value)}")
    for cause in value:  # of a dict of further effects, these effects
        yield _span(cause, where)


def _span(value: Any, where: str) -> Span:
    if isinstance(value, str):
        return Span(str(value))
    match value:
        case {"text": str(text), "start": _Number() as start, **rest} if not rest:
            if start.isdigit():
                return Span(str(text), int(start))
    raise InputError(
        f'{where}: a span must be text or {{"text": "8", "start": 93}}, not {json.dumps(value)}'
    )


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"input": record.input, "target": record.target}
    if record.important:
        row["important"] = [_entry(note) for note in record.important]
    return row


def _entry(note: Annotation) -> dict[str, Any]:
    causes = [_written(cause) for cause in note.causes]
    if note.effect.start is None:
        return {note.effect.text: causes}
    return {"effect": _written(note.effect), "causes": causes}


def _written(span: Span) -> str | dict[str, Any]:
    return span.text if span.start is None else {"text": span.text, "start": span.start}
