"""Records: a prompt, its answer, and which words the answer depends on.

Source: CAT (Han et al., EMNLP 2025). In a JSONL file, one line is one record::

    {"input": "Weight: 1, Smoking: 8 Answer: ", "target": "High Risk",
     "important": [{"High Risk": ["Smoking: 8", {"text": "1", "start": 8}]}]}

A cause with ``start`` stands at that character of input + target; a cause without is searched for
by its words (``cat_jax.data.matching``). An effect with ``start`` takes the longer form
``{"effect": {"text": "High Risk", "start": 30}, "causes": [...]}``.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from cat_jax.data.matching import words_at
from cat_jax.errors import InputError


@dataclass(frozen=True)
class Span:
    """Words of a record's text.

    Attributes:
        text: The words.
        start: Character offset into ``Record.text``, or into the content of a message; None
            searches for the words.
        message: Index from 0 of the message that holds a cause, in conversations only.
    """

    text: str
    start: int | None = None
    message: int | None = None


@dataclass(frozen=True)
class Annotation:
    """An effect and the causes it may attend to.

    Raises:
        InputError: There are no causes, or a span holds no words.
    """

    effect: Span
    causes: tuple[Span, ...]

    def __post_init__(self):
        if not self.effect.text.strip():
            raise InputError("an effect is empty; give its words, or remove the annotation")
        if not self.causes:
            raise InputError(
                f"the effect {self.effect.text!r} has no causes; give one, or remove the effect"
            )
        if not all(cause.text.strip() for cause in self.causes):
            raise InputError(
                f"a cause of {self.effect.text!r} is empty; give its words, or remove the cause"
            )


@dataclass(frozen=True)
class Record:
    """A prompt and its answer, for training or evaluation.

    Attributes:
        input: The prompt.
        target: The answer.
        important: Which words depend on which.
        where: Where it was read ("train.jsonl, line 3"), for messages; empty where it was made.

    Raises:
        InputError: The words of a span do not stand at its ``start``, or a span names a message.
    """

    input: str
    target: str
    important: tuple[Annotation, ...] = field(default=())
    where: str = field(default="", compare=False, kw_only=True)

    def __post_init__(self):
        text = self.text
        for annotation in self.important:
            for span in (annotation.effect, *annotation.causes):
                if span.message is not None:
                    raise InputError(
                        f"the cause {span.text!r} names a message, but this is no conversation; "
                        "remove 'message'"
                    )
                check_span(span, text, "input + target")

    def _repr_html_(self) -> str:
        from cat_jax.data.html_views import record_html

        return record_html(self)

    @property
    def text(self) -> str:
        """Return the prompt followed by the answer, which is what a model reads."""
        return self.input + self.target


def check_span(span: Span, text: str, name: str) -> None:
    """Raise InputError if the words of a span do not stand at its ``start`` in ``text``."""
    if span.start is None:
        return
    if span.start < 0 or words_at(text, span.text, span.start) is None:
        raise InputError(
            f"the words {span.text!r} do not stand at character {span.start} of {name}; correct "
            "'start', or leave it out to search for them"
        )


class JsonNumber(str):
    """A number of a JSON file as the file spells it: a target of 84.0 is the text "84.0"."""


def present(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the fields that are not None, with which ``datasets`` fills missing ones."""
    return {name: value for name, value in fields.items() if value is not None}


def parse_record(fields: Mapping[str, Any], where: str) -> Record:
    """Build a record from ``input``, ``target`` and ``important``.

    Raises:
        InputError: A field is missing or of another form.
    """
    prompt, target = (parse_text(fields, name, where) for name in ("input", "target"))
    important = parse_annotations(fields, where)
    try:
        return Record(prompt, target, important, where=where)
    except InputError as error:
        raise InputError(f"{where}, field 'important': {error}") from error


def parse_text(fields: Mapping[str, Any], name: str, where: str) -> str:
    """Return a field that holds text, or a number as text.

    Raises:
        InputError: The field is missing or holds something else.
    """
    if fields.get(name) is None:
        raise InputError(f"{where}, field {name!r}: missing; add it")
    text = _text(fields[name])
    if text is None:
        raise InputError(
            f"{where}, field {name!r}: must be text or a number, not {_shown(fields[name])}"
        )
    return text


def parse_annotations(fields: Mapping[str, Any], where: str) -> tuple[Annotation, ...]:
    """Return the annotations in ``important``, none where the field is missing or an empty list.

    Raises:
        InputError: The field has another form, or an effect, a cause or a list of causes is empty.
    """
    return tuple(_annotations(fields.get("important"), f"{where}, field 'important'"))


def record_fields(record: Record) -> dict[str, Any]:
    """Return the fields that ``parse_record`` reads."""
    return {"input": record.input, "target": record.target} | important_field(record.important)


def important_field(annotations: tuple[Annotation, ...]) -> dict[str, Any]:
    """Return the field that ``parse_annotations`` reads; no field without annotations."""
    return {"important": [_entry(annotation) for annotation in annotations]} if annotations else {}


def _text(value: Any) -> str | None:
    """Return text, or a finite number as text; None for anything else."""
    if isinstance(value, str):
        return str(value)  # no JsonNumber
    finite = isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value))
    return str(value) if finite and not isinstance(value, bool) else None


def _annotations(value: Any, where: str) -> Iterator[Annotation]:
    if value is None:
        return
    for entry in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(entry, Mapping) or not entry:
            raise InputError(f"{where}: expected {{effect: [causes]}}, not {_shown(entry)}")
        for effect, causes in _effects(entry):
            yield _annotation(_span(effect, where), tuple(_causes(causes, where)), where)
            if isinstance(causes, Mapping) and not _is_span(causes):
                in_turn = {name: of for name, of in causes.items() if not _is_leaf(of)}
                yield from _annotations(in_turn or None, where)


def _annotation(effect: Span, causes: tuple[Span, ...], where: str) -> Annotation:
    try:
        return Annotation(effect, causes)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _is_leaf(causes: Any) -> bool:
    """Tell whether a cause, an effect in turn, lists no causes of its own."""
    return isinstance(causes, list | tuple | Mapping) and not causes


def _effects(entry: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Pair effects with their causes: {effect: causes, ...} or {"effect": .., "causes": ..}."""
    filled, long = present(entry), {"effect", "causes"}
    if (
        filled
        and filled.keys() <= long <= entry.keys()
        and not isinstance(entry["effect"], list | tuple)
    ):
        return [(entry["effect"], entry["causes"])]
    return list(filled.items())


def _causes(value: Any, where: str) -> Iterator[Span]:
    if _text(value) is not None or _is_span(value):  # one cause outside a list
        value = [value]
    if isinstance(value, Mapping):
        value = present(value)  # causes that are effects in turn
    elif not isinstance(value, list | tuple):
        raise InputError(f"{where}: causes must be a list, not {_shown(value)}")
    for cause in value:
        yield _span(cause, where)


def _is_span(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and {"text"} <= value.keys() <= {"text", "start", "message"}
        and _text(value["text"]) is not None
    )


def _span(value: Any, where: str) -> Span:
    text = _text(value)
    if text is not None:
        return Span(text)
    if _is_span(value):
        start, message = value.get("start"), value.get("message")
        if _is_index(start) and _is_index(message):
            offsets = (None if number is None else int(number) for number in (start, message))
            return Span(str(value["text"]), *offsets)
    raise InputError(
        f'{where}: a span must be text or {{"text": "8", "start": 93}}, not {_shown(value)}'
    )


def _is_index(value: Any) -> bool:
    if isinstance(value, JsonNumber):
        return value.isdigit() and len(value) < 19  # no text is longer, and int() has a limit
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return value is None or (whole and int(value) >= 0)


def _entry(annotation: Annotation) -> dict[str, Any]:
    causes = [_span_field(cause) for cause in annotation.causes]
    if annotation.effect.start is None:
        return {annotation.effect.text: causes}
    return {"effect": _span_field(annotation.effect), "causes": causes}


def _span_field(span: Span) -> str | dict[str, Any]:
    offsets = present({"start": span.start, "message": span.message})
    return {"text": span.text} | offsets if offsets else span.text


def _shown(value: Any) -> str:
    shown = json.dumps(value, default=repr)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
