"""Rivals that change which records there are."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.tasks.base import Task
from cat_jax.tasks.controls.places import plain_records


def counterfactual(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Add to each record one whose spurious values are redrawn: counterfactual augmentation.

    It is the best that a task which can intervene on itself allows.

    Raises:
        InputError: A conversation, or the task has no intervention "spurious".
    """
    plain = plain_records(records, "counterfactual")
    intervene = task.interventions.get("spurious")
    if intervene is None:
        raise InputError(
            f"counterfactual: task {task.name} has no intervention 'spurious', which redraws what "
            "must not matter; give it one (docs/extending.md)"
        )
    rng = np.random.default_rng(seed)
    return [x for record in plain for x in (record, intervene(record, rng))]


def balanced(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Repeat records of the rarer answers until every answer is as frequent as the most frequent.

    Raises:
        InputError: A conversation, or answers that are no classes: most occur once.
    """
    plain = plain_records(records, "balanced")
    counts = Counter(record.target for record in plain)
    if 2 * len(counts) > len(plain):
        raise InputError(
            f"balanced: {len(counts)} different answers in {len(plain)} records are no classes to "
            "balance; use a task with few answers"
        )
    most = max(counts.values())
    rng = np.random.default_rng(seed)
    added = []
    for target, count in sorted(counts.items()):
        same = [record for record in plain if record.target == target]
        added += [same[n] for n in _repeats(rng, count, most - count)]
    return [*plain, *added]


def _repeats(rng: np.random.Generator, count: int, missing: int) -> list[int]:
    """Return indices below ``count``, as evenly as can be."""
    whole, rest = divmod(missing, count)
    return [*list(range(count)) * whole, *rng.permutation(count)[:rest].tolist()]
