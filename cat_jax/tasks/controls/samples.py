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
    return _evened(plain, [record.target for record in plain], seed)


def group_reweighting(task: Task, records: Sequence[TrainingRecord], seed: int) -> list[Record]:
    """Repeat records of the rarer groups until every group of the task weighs the same.

    Source: Idrissi et al., "Simple data balancing achieves competitive worst-group-accuracy"
    (CLeaR 2022). Records whose group is not known stay as they are.

    Raises:
        InputError: A conversation, or fewer than two groups.
    """
    plain = plain_records(records, "group_reweighting")
    groups = [task.group(record) for record in plain]
    found = sorted({group for group in groups if group is not None})
    if len(found) < 2:
        known = f"only one, {found[0]!r}" if found else "none"
        raise InputError(
            f"group_reweighting: it needs two groups of training records, and task {task.name} "
            f"has {known}; give it a group (docs/extending.md), or leave the method out"
        )
    return _evened(plain, groups, seed)


def _evened(records: list[Record], kinds: Sequence[str | None], seed: int) -> list[Record]:
    """Append records of the rarer kinds, until each is as frequent as the most frequent.

    Records of the kind None are not repeated.
    """
    counts = Counter(kind for kind in kinds if kind is not None)
    most = max(counts.values())
    rng = np.random.default_rng(seed)
    added = []
    for kind, count in sorted(counts.items()):
        same = [record for record, other in zip(records, kinds, strict=True) if other == kind]
        added += [same[n] for n in _repeats(rng, count, most - count)]
    return [*records, *added]


def _repeats(rng: np.random.Generator, count: int, missing: int) -> list[int]:
    """Return indices below ``count``, as evenly as can be."""
    whole, rest = divmod(missing, count)
    return [*list(range(count)) * whole, *rng.permutation(count)[:rest].tolist()]
