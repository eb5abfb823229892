"""Several opinions on a record: what they share, and how much they agree.

Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), nominal data; over
the characters of a text, as in his "Measuring the reliability of qualitative text analysis data"
(2004), so that spans of other lengths agree in part.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cat_jax.annotation.opinions import Edge, Opinion, Place
from cat_jax.annotation.prior import Prior
from cat_jax.data.matching import find_span
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

Keep = Literal["majority", "intersection"]
"""Edges that more than half of the opinions name, or that all of them name."""


@dataclass(frozen=True)
class Agreement:
    """How far opinions on a record agree.

    Attributes:
        opinions: How many passed the checks.
        shares: Of each edge that one of them names, the share of them that name it.
    """

    opinions: int
    shares: Mapping[Edge, float]

    @property
    def share(self) -> float:
        """Return the mean over the edges; 1 where all opinions are the same."""
        return float(np.mean([*self.shares.values()]))


def combine(
    record: Record, opinions: Sequence[Opinion], prior: Prior, keep: Keep
) -> tuple[tuple[Annotation, ...], Agreement]:
    """Return the annotations that opinions share.

    Annotations are in the order of their effects, causes in the order of the text. They are empty
    if no kept edge leads to the answer.

    Args:
        record: The record.
        opinions: At least one that passed the checks; others are left out.
        prior: Says which kind the answer is of.
        keep: Which edges are kept.
    """
    valid = [opinion for opinion in opinions if not opinion.reasons]
    votes = Counter(edge for opinion in valid for edge in opinion.edges)
    needed = len(valid) if keep == "intersection" else len(valid) // 2 + 1
    kept = sorted(edge for edge, count in votes.items() if count >= needed)
    shares = {edge: count / len(valid) for edge, count in sorted(votes.items())}
    agreement = Agreement(len(valid), shares)
    kinds = kinds_of(valid)
    if not any(kinds[effect] == prior.answer for effect, _ in kept):
        return (), agreement
    effects = dict.fromkeys(effect for effect, _ in kept)
    return (
        tuple(
            Annotation(
                _span(record, effect),
                tuple(_span(record, cause) for other, cause in kept if other == effect),
            )
            for effect in effects
        ),
        agreement,
    )


def kinds_of(opinions: Iterable[Opinion]) -> dict[Place, str]:
    """Return the kind of each span; of several the one that most opinions name."""
    votes: dict[Place, Counter[str]] = {}
    for opinion in opinions:
        for place, kind in opinion.kinds.items():
            votes.setdefault(place, Counter())[kind] += 1
    return {place: count.most_common(1)[0][0] for place, count in sorted(votes.items())}


def edges_of(record: Record) -> frozenset[Edge]:
    """Return the edges of a record; words without an offset stand wherever they are found."""
    return frozenset(
        ((effect.start, effect.stop), (cause.start, cause.stop))
        for annotation in record.important
        for effect in find_span(record.text, annotation.effect, is_effect=True)
        for span in annotation.causes
        for cause in find_span(record.text, span)
        if cause.stop <= effect.start
    )


def annotator_agreement(*annotators: Iterable[Record]) -> float:
    """Return Krippendorff's alpha of annotators of the same records.

    Args:
        *annotators: Each one's annotated records, in the same order; those that one of them left
            without annotation are left out.

    Raises:
        InputError: The records are not the same.
    """
    units = []
    for number, records in enumerate(zip(*annotators, strict=True), 1):
        if len({record.text for record in records}) > 1:
            raise InputError(f"record {number} is not the same of each annotator; sort them alike")
        if all(record.important for record in records):
            units.append((records[0].text, [edges_of(record) for record in records]))
    return krippendorff_alpha(units)


def krippendorff_alpha(records: Iterable[tuple[str, Sequence[Iterable[Edge]]]]) -> float:
    """Return Krippendorff's alpha of annotations by several annotators.

    A unit is a character that is no space, for each effect that one of them names and that it
    stands before; its value is whether the annotator has it in a cause of this effect. Records
    with one annotator say nothing.

    Args:
        records: Text and each annotator's edges, of each record.

    Returns:
        1 for full agreement, 0 for that of chance; NaN where chance leaves nothing to disagree on.
    """
    zeros = ones = disagreement = 0.0
    for text, annotators in records:
        if len(annotators) < 2:
            continue
        for marked_AT in _marks(text, annotators):
            count_T, raters = marked_AT.sum(0, dtype=float), len(annotators)
            ones += count_T.sum()
            zeros += (raters - count_T).sum()
            disagreement += (2 * count_T * (raters - count_T)).sum() / (raters - 1)
    total = zeros + ones
    expected = 2 * zeros * ones / (total * (total - 1)) if total > 1 else 0.0
    return 1 - disagreement / total / expected if expected else float("nan")


def _marks(text: str, annotators: Sequence[Iterable[Edge]]) -> Iterator[np.ndarray]:
    """Yield for each effect which characters before it each annotator marks, [A, T] of bool."""
    given = [set(edges) for edges in annotators]
    effects = sorted({effect for edges in given for effect, _ in edges})
    for effect in effects:
        is_word_T = np.array([not letter.isspace() for letter in text[: effect[0]]], bool)
        marked_AT = np.zeros((len(given), effect[0]), bool)
        for row, edges in zip(marked_AT, given, strict=True):
            for _, (start, stop) in (edge for edge in edges if edge[0] == effect):
                row[start:stop] = True
        yield marked_AT[:, is_word_T]


def _span(record: Record, place: Place) -> Span:
    return Span(record.text[slice(*place)], place[0])
