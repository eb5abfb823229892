"""Places in a record's text: of annotated words, of spurious ones, of any words."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.matching import find_span
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.tasks.base import Task

WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Place:
    """An annotation by its characters.

    Attributes:
        effect: Where the effect stands, the last time.
        causes: Where its causes stand before it, every time, in text order.
    """

    effect: range
    causes: list[range]


def places(record: Record) -> list[Place]:
    """Return where the annotations of a record stand; those of words that it lacks are left out."""
    found = []
    for note in record.important:
        effects = find_span(record.text, note.effect, is_effect=True)
        if not effects:
            continue
        effect = effects[-1]
        causes = {
            (place.start, place.stop)
            for cause in note.causes
            for place in find_span(record.text, cause)
            if place.stop <= effect.start
        }
        if causes:
            found.append(Place(effect, [range(*cause) for cause in sorted(causes)]))
    return found


def answer_causes(record: Record) -> list[range]:
    """Return where the causes of the answer stand in the prompt, in text order."""
    found = {
        (cause.start, cause.stop)
        for place in places(record)
        if place.effect.stop > len(record.input)
        for cause in place.causes
        if cause.stop <= len(record.input)
    }
    return [range(*cause) for cause in sorted(found)]


def annotated(record: Record, found: Iterable[Place]) -> Record:
    """Return the record with these annotations instead of its own."""
    notes = (
        Annotation(
            _span(record.text, place.effect),
            tuple(_span(record.text, cause) for cause in place.causes),
        )
        for place in found
    )
    return replace(record, important=tuple(notes))


def _span(text: str, place: range) -> Span:
    return Span(text[place.start : place.stop], place.start)


def plain_records(records: Sequence[TrainingRecord], control: str) -> list[Record]:
    """Return the records, none of which may be a conversation.

    Raises:
        InputError: One is.
    """
    for number, record in enumerate(records, 1):
        if not isinstance(record, Record):
            raise InputError(
                f"{control}: record {number} is a conversation; this control takes prompts and "
                "answers"
            )
    return [record for record in records if isinstance(record, Record)]


def check_annotated(records: Sequence[Record], control: str) -> None:
    """Raise InputError if no record is annotated."""
    if not any(record.important for record in records):
        raise InputError(f"{control}: no record is annotated; it needs the field 'important'")


def spurious_places(task: Task, record: Record) -> list[range]:
    """Return where a record names its spurious factors in the prompt, in text order."""
    found = {
        (place.start, place.stop)
        for span in task.spurious_spans(record)
        for place in find_span(record.text, span)
        if place.stop <= len(record.input)
    }
    return [range(*place) for place in sorted(found)]


def check_spurious(task: Task, records: Sequence[Record], control: str) -> None:
    """Raise InputError if the task does not know what is spurious in its records."""
    if not any(task.spurious_spans(record) for record in records[:100]):
        raise InputError(
            f"{control}: task {task.name} does not say what is spurious in its records; give it "
            "spurious_spans (docs/extending.md)"
        )


def overlap(one: range, other: range) -> bool:
    """Tell whether two places share a character."""
    return one.start < other.stop and other.start < one.stop


def word_places(text: str) -> list[range]:
    """Return where the words of a text stand: runs of letters, digits and underscores."""
    return [range(*match.span()) for match in WORD.finditer(text)]


def word_runs(words: Sequence[range], length: int) -> list[range]:
    """Return where runs of so many words stand."""
    return [
        range(words[n].start, words[n + length - 1].stop) for n in range(len(words) - length + 1)
    ]
