"""Controls that spoil annotations: few records annotated, causes missing, or causes wrong."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.tasks.base import Task
from cat_jax.tasks.controls.annotations import random_place
from cat_jax.tasks.controls.places import (
    Place,
    annotated,
    check_annotated,
    places,
    plain_records,
)


def few_annotations(
    task: Task, records: Sequence[TrainingRecord], seed: int, *, share: float
) -> list[Record]:
    """Keep the annotations of a share of the annotated records, and of one at least.

    They are drawn at random; a larger share has the same ones and more.

    Raises:
        InputError: A conversation, or no record is annotated.
    """
    plain = plain_records(records, "few_annotations")
    check_annotated(plain, "few_annotations")
    found = [n for n, record in enumerate(plain) if record.important]
    count = max(1, round(share * len(found)))
    order = np.random.default_rng([seed, len(found)]).permutation(len(found))[:count].tolist()
    kept = {found[n] for n in order}
    return [
        record if n in kept else replace(record, important=()) for n, record in enumerate(plain)
    ]


def missing_causes(
    task: Task, records: Sequence[TrainingRecord], seed: int, *, share: float
) -> list[Record]:
    """Leave out each cause with probability ``share``; an effect that has none left is unguided.

    A larger share leaves out the same ones and more.

    Raises:
        InputError: A conversation, or no record is annotated.
    """
    plain = plain_records(records, "missing_causes")
    check_annotated(plain, "missing_causes")
    return [
        annotated(record, [left for left in kept if left.causes])
        for n, record in enumerate(plain)
        for rng in [np.random.default_rng([seed, n, 2])]
        for kept in [[_thinned(place, share, rng) for place in places(record)]]
    ]


def _thinned(place: Place, share: float, rng: np.random.Generator) -> Place:
    is_kept = (rng.random(len(place.causes)) >= share).tolist()
    return Place(place.effect, [c for c, kept in zip(place.causes, is_kept, strict=True) if kept])


def wrong_causes(
    task: Task, records: Sequence[TrainingRecord], seed: int, *, share: float
) -> list[Record]:
    """Annotate random words, as many, in the place of each cause with probability ``share``.

    They are drawn as those of ``random_spans``.

    Raises:
        InputError: A conversation, or no record is annotated.
    """
    plain = plain_records(records, "wrong_causes")
    check_annotated(plain, "wrong_causes")
    return [
        annotated(record, [_mixed(record, place, share, rng) for place in places(record)])
        for n, record in enumerate(plain)
        for rng in [np.random.default_rng([seed, n, 1])]
    ]


def _mixed(record: Record, place: Place, share: float, rng: np.random.Generator) -> Place:
    others = random_place(record, place, rng).causes
    is_wrong = rng.random(len(others)) < share
    pairs = zip(place.causes, others, is_wrong, strict=True)
    chosen = [other if wrong else cause for cause, other, wrong in pairs]
    return Place(place.effect, sorted(chosen, key=lambda x: x.start))
