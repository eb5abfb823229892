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
        start: character offset into ``Record.text``, or into the content of a message; None means
            "find them".
        message: of a cause in a conversation, the message that it stands in, counted from 0.
    """

    text: str
    start: int | None = None
    message: int | None = None


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
        for note in self.important:
            for span in (note.effect, *note.causes):
                if span.message is not None:
                    raise InputError(
                        f"the cause {span.text!r} names a message, but this is no conversation"
                    )
                check_span(span, self.text, "input + target")

    @property
    def text(self) -> str:
        """The prompt followed by the answer."""
        return self.input + self.target


def check_span(span: Span, text: str, name: str) -> None:
    """Raises InputError if the words of a span do not stand at its ``start`` in ``text``."""
    if span.start is not None and (span.start < 0 or not text.startswith(span.text, span.start)):
        raise InputError(
            f"the words {span.text!r} do not stand at character {span.start} of {name}; correct "
            "'start', or leave it out to search for them"
        )


class _Number(str):
    """A JSON number as the file spells it: a target of 84.0 is the text "84.0"."""


def read_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file's lines that are not blank, each with its place for messages.

    Raises:
        InputError: a missing or unreadable file, a line that is no JSON object, or a field that
            stands twice; the message names file, line and field.
    """
    path = Path(path)
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


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as ``read_records`` reads them: the whole file appears at once, or none of it.

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


def parse_record(row: dict[str, Any], where: str) -> Record:
    """A line with ``input`` and ``target``.

    Raises:
        InputError: a field is missing, or of another kind.
    """
    prompt, target = (parse_text(row, name, where) for name in ("input", "target"))
    important = parse_annotations(row, where)
    try:
        return Record(prompt, target, important)
    except InputError as error:
        raise InputError(f"{where}, field 'important': {error}") from error


def parse_text(row: dict[str, Any], name: str, where: str) -> str:
    """A field that holds text, or a number as the file spells it.

    Raises:
        InputError: it is missing, or holds something else.
    """
    if name not in row:
        raise InputError(f"{where}: the field {name!r} is missing; add it")
    if not isinstance(row[name], str):
        raise InputError(f"{where}: the field {name!r} must be text or a number")
    return str(row[name])


def parse_annotations(row: dict[str, Any], where: str) -> tuple[Annotation, ...]:
    """The field ``important``; without it, nothing is annotated.

    Raises:
        InputError: it has another form.
    """
    return tuple(_annotations(row.get("important"), f"{where}, field 'important'"))


def _parse_line(line: str, where: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{where}: the field {twice[0]!r} stands twice; remove one")
        return dict(pairs)

    try:
        row = json.loads(line, parse_int=_Number, parse_float=_Number, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error}); write one object a line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected one JSON object with 'input' and 'target'")
    return row


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
    if isinstance(value, dict) and {"text"} < value.keys() <= {"text", "start", "message"}:
        text, start, message = (value.get(name) for name in ("text", "start", "message"))
        if isinstance(text, str) and _is_count(start) and _is_count(message):
            return Span(str(text), *(None if n is None else int(n) for n in (start, message)))
    raise InputError(
        f'{where}: a span must be text or {{"text": "8", "start": 93}}, not {json.dumps(value)}'
    )


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, _Number) and value.isdigit())


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
