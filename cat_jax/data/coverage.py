"""How much of an annotation can be used: which of its words stand in the text."""

from collections.abc import Iterable
from dataclasses import dataclass

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record


@dataclass(frozen=True)
class Coverage:
    """Edges from a cause to its effect, over records.

    Attributes:
        edges: All of them.
        in_order: Those whose words both stand in the text, letter by letter, the cause first.
    """

    edges: int
    in_order: int

    @property
    def share(self) -> float:
        """Share of the edges that stand in the text in order; NaN without any."""
        return self.in_order / self.edges if self.edges else float("nan")


def annotation_coverage(records: Iterable[TrainingRecord]) -> Coverage:
    """Count the annotated edges whose words stand in the text, the cause before the effect.

    The first occurrence of the cause must end before the last one of the effect starts.
    Conversations are left out.
    """
    edges = in_order = 0
    for record in records:
        if not isinstance(record, Record):
            continue
        text = record.text
        for note in record.important:
            effect = text.rfind(note.effect.text)
            for cause in note.causes:
                start = text.find(cause.text)
                edges += 1
                in_order += 0 <= start <= effect - len(cause.text)
    return Coverage(edges, in_order)
