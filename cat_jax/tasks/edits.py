"""Edits of a record's prompt that move its annotation along."""

from collections.abc import Callable, Sequence

from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

Edit = tuple[int, int, str]
"""First and last character (exclusive) to replace, and the text in their place."""


def replace_text(record: Record, edits: Sequence[Edit]) -> Record:
    """Return the record with parts of its prompt replaced.

    Args:
        record: Record.
        edits: Parts, in text order, none of which overlap.

    Raises:
        InputError: An annotation with an offset covers a part that is replaced.
    """
    pieces, end = [], 0
    for start, stop, new in edits:
        pieces += [record.input[end:start], new]
        end = stop
    return Record(
        "".join([*pieces, record.input[end:]]),
        record.target,
        map_spans(record, lambda span: _moved(span, edits)),
        where=record.where,
    )


def map_spans(record: Record, change: Callable[[Span], Span]) -> tuple[Annotation, ...]:
    """Return the annotations of a record with each span changed."""
    return tuple(
        Annotation(change(note.effect), tuple(map(change, note.causes)))
        for note in record.important
    )


def _moved(span: Span, edits: Sequence[Edit]) -> Span:
    """Find the same words after the edits."""
    if span.start is None:
        return span
    end = span.start + len(span.text)
    if any(start < end and span.start < stop for start, stop, _ in edits):
        raise InputError(f"the annotation {span.text!r} covers a value to be replaced")
    shift = sum(len(new) - (stop - start) for start, stop, new in edits if stop <= span.start)
    return Span(span.text, span.start + shift)
