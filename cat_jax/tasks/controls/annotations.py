"""Controls that annotate other words than the causes."""

from collections.abc import Sequence

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.tasks.base import Task
from cat_jax.tasks.controls.places import (
    Place,
    annotated,
    check_annotated,
    check_spurious,
    overlap,
    places,
    plain_records,
    spurious_places,
    word_places,
    word_runs,
)


def random_spans(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Annotate random words in the place of each cause: as many words, drawn anew for each record.

    They stand before the effect, and are none of the annotated causes where the text is long
    enough.

    Raises:
        InputError: A conversation, or no record is annotated.
    """
    plain = plain_records(records, "random_spans")
    check_annotated(plain, "random_spans")
    return [
        annotated(
            record,
            [random_place(record, place, np.random.default_rng([seed, n])) for place in found],
        )
        for n, record in enumerate(plain)
        for found in [places(record)]
    ]


def random_place(record: Record, place: Place, rng: np.random.Generator) -> Place:
    """Return random words before the effect, as many as each of its causes has."""
    words = word_places(record.text[: place.effect.start])
    taken: list[range] = []
    for cause in place.causes:
        length = _words_in(record.text, cause)
        runs = [x for x in word_runs(words, length) if not any(overlap(x, y) for y in taken)]
        others = [x for x in runs if not any(overlap(x, y) for y in place.causes)]
        choices = others or runs or [cause]
        taken.append(choices[rng.integers(len(choices))])
    return Place(place.effect, sorted(taken, key=lambda x: x.start))


def _words_in(text: str, place: range) -> int:
    return max(1, len(word_places(text[place.start : place.stop])))


def shuffled_causes(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Annotate the words that stand where the causes of another record stand in its own text.

    Places are counted in words. No record keeps its own causes' places, of which there is a
    shuffle of the annotated records.

    Raises:
        InputError: A conversation, fewer than two annotated records, or records that name their
            causes at the same places, where a shuffle changes nothing.
    """
    plain = plain_records(records, "shuffled_causes")
    check_annotated(plain, "shuffled_causes")
    found = {n: x for n, record in enumerate(plain) if (x := places(record))}
    shuffled = list(plain)
    kept = 0
    for n, other in _derangement(list(found), seed).items():
        borrowed = [
            _borrowed(plain[n], place, plain[other], found[other][k % len(found[other])])
            for k, place in enumerate(found[n])
        ]
        kept += _starts(borrowed) == _starts(found[n])
        shuffled[n] = annotated(plain[n], borrowed)
    if 2 * kept >= len(found):
        raise InputError(
            f"shuffled_causes: {kept} of {len(found)} records name their causes at the same "
            "places, so a shuffle changes nothing; use random_spans"
        )
    return shuffled


def _starts(found: Sequence[Place]) -> list[list[int]]:
    return [[cause.start for cause in place.causes] for place in found]


def _derangement(items: Sequence[int], seed: int) -> dict[int, int]:
    """Return for every item another one, each once: a random cycle through all."""
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    return {items[order[n - 1]]: items[order[n]] for n in range(len(items))}


def _borrowed(record: Record, place: Place, other: Record, causes_of: Place) -> Place:
    words = word_places(record.text[: place.effect.start])
    starts = [word.start for word in word_places(other.text)]
    taken: list[range] = []
    for cause in causes_of.causes:
        runs = word_runs(words, min(_words_in(other.text, cause), len(words)))
        first = sum(start < cause.start for start in starts)
        if runs:
            taken.append(runs[first % len(runs)])
    distinct = {(x.start, x.stop) for x in taken}
    return Place(place.effect, [range(*x) for x in sorted(distinct)] or place.causes)


def spurious_spans(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Annotate what is spurious as the causes of the answer: a negative control.

    Annotations of other effects are left out.

    Raises:
        InputError: A conversation, no record is annotated, or the task does not say what is
            spurious.
    """
    plain = plain_records(records, "spurious_spans")
    check_annotated(plain, "spurious_spans")
    check_spurious(task, plain, "spurious_spans")
    return [
        annotated(
            record,
            [
                Place(place.effect, spurious)
                for place in places(record)
                if place.effect.stop > len(record.input)
                if (spurious := spurious_places(task, record))
            ],
        )
        for record in plain
    ]
