"""Control: a causal prior that is wrong in one place."""

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

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

_BORDER = re.compile(r"[,;.!?]\s|[\n{]")
"""Where a clause ends: what stands before names no factor that stands behind."""
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)\S*")

Factors = Mapping[str, range]
"""Places of a record by the name of their factor."""


def wrong_prior(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Annotate a spurious factor in the place of one cause, the same two in all records.

    So does an expert who takes a symptom for a cause. Of all pairs it is the one whose numbers go
    together most closely in the training records. A factor's name are the words before its number.
    Annotations of other effects by that cause are left out.

    Raises:
        InputError: A conversation, no record is annotated, the task does not say what is
            spurious, or no cause and spurious factor with numbers stand in half of the records.
    """
    plain = plain_records(records, "wrong_prior")
    check_annotated(plain, "wrong_prior")
    check_spurious(task, plain, "wrong_prior")
    causes = [_named(record, answer_causes(record)) for record in plain]
    spurious = [_named(record, spurious_places(task, record)) for record in plain]
    cause, factor = _closest(plain, causes, spurious)
    return [
        _replaced(record, right[cause], wrong[factor])
        if cause in right and factor in wrong
        else record
        for record, right, wrong in zip(plain, causes, spurious, strict=True)
    ]


def _named(record: Record, found: Sequence[range]) -> Factors:
    """Return the places with a number by the words of their clause, up to the end of the place."""
    named = {}
    for place in found:
        before = [m.end() for m in _BORDER.finditer(record.text, 0, place.start)]
        clause = record.text[max(before, default=0) : place.stop]
        name = " ".join(_WORD.findall(_NUMBER.sub("", clause)))
        if name and _NUMBER.search(record.text, place.start, place.stop):
            named[name] = place
    return named


def _closest(
    records: Sequence[Record], causes: Sequence[Factors], spurious: Sequence[Factors]
) -> tuple[str, str]:
    """Return the names of the cause and the spurious factor that are correlated most."""
    annotated_count = sum(map(bool, causes))
    names = [sorted(set(itertools.chain(*found))) for found in (causes, spurious)]
    scores: dict[tuple[str, str], float] = {}
    for cause, factor in itertools.product(*names):
        pairs = [
            [_number(record, right[cause]), _number(record, wrong[factor])]
            for record, right, wrong in zip(records, causes, spurious, strict=True)
            if cause in right and factor in wrong
        ]
        if len(pairs) > 1 and 2 * len(pairs) >= annotated_count and np.std(pairs, axis=0).all():
            scores[cause, factor] = abs(np.asarray(np.corrcoef(pairs, rowvar=False))[0, 1])
    if not scores:
        raise InputError(
            "wrong_prior: no cause and spurious factor with numbers stand by the same names in "
            "half of the annotated records, so none can take the place of the other; use "
            "spurious_spans"
        )
    return max(scores, key=lambda pair: round(scores[pair], 6))  # of equals the first by name


def _number(record: Record, place: range) -> float:
    match = _NUMBER.search(record.text, place.start, place.stop)
    assert match is not None  # named places have one
    return float(match[1])


def _replaced(record: Record, cause: range, factor: range) -> Record:
    """Annotate the factor instead of the cause; its number alone if that is all of the cause."""
    number = _NUMBER.search(record.text, factor.start, factor.stop)
    if number and not _WORD.search(_NUMBER.sub("", record.text[cause.start : cause.stop])):
        factor = range(*number.span())
    found = []
    for place in places(record):
        if place.effect.stop > len(record.input):
            changed = [factor if x == cause else x for x in place.causes]
            found.append(Place(place.effect, sorted(changed, key=lambda x: x.start)))
        elif not any(overlap(x, cause) for x in place.causes):
            found.append(place)
    return annotated(record, found)
