"""Rivals that edit prompts: what is spurious masked, the causes alone, the causes named."""

from collections.abc import Sequence

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.tasks.base import Task
from cat_jax.tasks.controls.places import (
    Place,
    annotated,
    answer_causes,
    check_annotated,
    check_spurious,
    overlap,
    places,
    plain_records,
    spurious_places,
)
from cat_jax.tasks.edits import replace_text

MASK = "..."


def masked_spurious(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Replace what is spurious in each prompt by "...".

    Raises:
        InputError: A conversation, or the task does not say what is spurious.
    """
    plain = plain_records(records, "masked_spurious")
    check_spurious(task, plain, "masked_spurious")
    return [_masked(record, spurious_places(task, record)) for record in plain]


def _masked(record: Record, masked: Sequence[range]) -> Record:
    kept = []
    for place in places(record):
        causes = [x for x in place.causes if not any(overlap(x, y) for y in masked)]
        if causes and not any(overlap(place.effect, y) for y in masked):
            kept.append(Place(place.effect, causes))
    edits = [(place.start, place.stop, MASK) for place in masked]
    return replace_text(annotated(record, kept), edits)


def causes_only(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Reduce each prompt to the causes of its answer, and the text after the last factor.

    Records whose answer has no annotated cause stay as they are.

    Raises:
        InputError: A conversation, or no record is annotated.
    """
    plain = plain_records(records, "causes_only")
    check_annotated(plain, "causes_only")
    return [_reduced(task, record) for record in plain]


def _reduced(task: Task, record: Record) -> Record:
    causes = answer_causes(record)
    if not causes:
        return record
    words = [record.input[cause.start : cause.stop] for cause in causes]
    rest = max(place.stop for place in (*causes, *spurious_places(task, record)))
    text = ", ".join(words) + record.input[rest:]
    starts = [sum(len(word) + 2 for word in words[:n]) for n in range(len(words))]
    moved = [range(x, x + len(word)) for x, word in zip(starts, words, strict=True)]
    reduced = Record(text, record.target, where=record.where)
    return annotated(reduced, [Place(range(len(text), len(reduced.text)), moved)])


def named_causes(record: TrainingRecord) -> Record:
    """Begin a prompt with the causes of its answer; for training and test prompts alike.

    Raises:
        InputError: A conversation, or the answer has no annotated cause.
    """
    if not isinstance(record, Record):
        raise InputError(
            "named_causes: a record is a conversation; this control takes prompts and answers"
        )
    causes = dict.fromkeys(record.input[x.start : x.stop] for x in answer_causes(record))
    if not causes:
        raise InputError(
            f"named_causes: {record.where or 'a record'} has no annotated cause of its answer; "
            "annotate all records, the tests too"
        )
    kept = annotated(record, places(record))
    return replace_text(kept, [(0, 0, f"The answer depends on {', '.join(causes)}. ")])
