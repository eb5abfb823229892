"""Reference rules: answers without a model, and how right they are on a task's test sets."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.tasks.base import Rule, Task


def majority_rule(training: Iterable[Record]) -> Rule:
    """Return the rule that always gives the most frequent answer of the training records."""
    answer = Counter(record.target for record in training).most_common(1)[0][0]
    return lambda record: answer


def score_rule(
    rule: Rule, records: Sequence[Record], is_right: Callable[[str, str], bool]
) -> float:
    """Return the share of records that a rule answers rightly; ``is_right(answer, target)``."""
    return sum(is_right(rule(record), record.target) for record in records) / len(records)


def score_rules(
    task: Task, tests: Mapping[str, Sequence[TrainingRecord]] | None = None, *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Return the share of right answers of every reference rule on every test set.

    Args:
        task: Gives the rules; they are fitted to its training records of the seed.
        tests: Test sets by name; all of the task by default. Conversations are left out, because
            rules read the prompt of a record.
        seed: Seed of the records.
    """
    if tests is None:
        tests = {name: task.records(name, seed) for name in task.test_splits}
    sets = {
        name: [record for record in records if isinstance(record, Record)]
        for name, records in tests.items()
    }
    return {
        name: {
            split: score_rule(rule, records, task.is_right)
            for split, records in sets.items()
            if records
        }
        for name, rule in task.reference_rules(seed).items()
    }
