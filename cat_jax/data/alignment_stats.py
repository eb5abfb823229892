"""Counts of an alignment, and the annotated words that were not found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

from cat_jax.data.conversations import TrainingRecord

NAMED = 3  # unmatched spans that a sentence names
SHOWN = 60  # characters of their words


@dataclass(frozen=True)
class Unmatched:
    """Words of an annotation that mark no token of their record.

    Attributes:
        where: File and line of the record, or its number counted from 1.
        role: "effect" or "cause".
        words: The words.
    """

    where: str
    role: Literal["effect", "cause"]
    words: str

    def __str__(self) -> str:
        cut = len(self.words) > SHOWN
        return f"{self.where}: {self.role} {self.words[:SHOWN]!r}{'...' if cut else ''}"


@dataclass(frozen=True)
class AlignmentStats:
    """Counts of aligned records and spans; ``a + b`` are the counts of both data sets.

    Attributes:
        spans_asked: Effects and causes of the aligned records.
        spans_found: Spans among these that occur in the text.
        records: Aligned records.
        records_without_mask: Records among these whose mask is empty, annotated or not.
        too_long: Records left out because they have too many tokens.
        altered: Conversations left out because the chat template alters them.
        unmatched: Spans that do not occur in the text, ``spans_asked - spans_found`` of them.
    """

    spans_asked: int = 0
    spans_found: int = 0
    records: int = 0
    records_without_mask: int = 0
    too_long: int = 0
    altered: int = 0
    unmatched: tuple[Unmatched, ...] = field(default=(), compare=False, repr=False)

    def __add__(self, other: "AlignmentStats") -> "AlignmentStats":
        names = (field.name for field in fields(self))
        return AlignmentStats(*(getattr(self, name) + getattr(other, name) for name in names))

    def __str__(self) -> str:
        return (
            f"spans found {self.spans_found}/{self.spans_asked}, records without annotation "
            f"{self.records_without_mask}/{self.records}, records too long {self.too_long}"
            + (f", altered by the chat template {self.altered}" if self.altered else "")
        )

    def name_unmatched(self) -> str:
        """Return a sentence that names the first unmatched spans and counts the others."""
        named = "; ".join(map(str, self.unmatched[:NAMED]))
        more = len(self.unmatched) - NAMED
        return (
            f"{len(self.unmatched)} of {self.spans_asked} annotated effects and causes were not "
            f"found in their record: {named}{f'; and {more} more' if more > 0 else ''}"
        )


def unmatched_spans(
    record: TrainingRecord, found: Sequence[bool], where: str
) -> Iterator[Unmatched]:
    """Yield the spans of a record that were not found.

    Args:
        record: Record or conversation.
        found: Whether each span was found: of each annotation the effect, then its causes.
        where: File and line of the record, or its number.
    """
    marked = iter(found)
    for annotation in record.important:
        if not next(marked):
            yield Unmatched(where, "effect", annotation.effect.text)
        yield from (
            Unmatched(where, "cause", cause.text) for cause in annotation.causes if not next(marked)
        )
