"""Reference rules on the test sets of a model: what its scores are to be held against."""

from collections.abc import Mapping

from cat_jax.data.records import Record
from cat_jax.evaluation.answers import changed_answers
from cat_jax.evaluation.testsets import SPURIOUS, TestSet
from cat_jax.tasks.base import Task
from cat_jax.tasks.rules import score_rule


def evaluate_rules(
    task: Task,
    tests: Mapping[str, TestSet],
    interventions: Mapping[str, TestSet],
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Score the task's reference rules as ``Evaluation.scores`` does a model.

    Test files are left out, because rules know the texts of their task alone, and conversations,
    because they read the prompt of a record.

    Args:
        task: Gives the rules; they are fitted to its training records of the seed.
        tests: From ``make_test_sets``.
        interventions: From ``make_interventions``, of the first test set.
        seed: Seed of the training records.

    Returns:
        Scores by name by rule.
    """
    own = {name: _records(test) for name, test in tests.items() if name in task.splits}
    own = {name: records for name, records in own.items() if records}
    scores: dict[str, dict[str, float]] = {}
    for rule, answer in task.reference_rules(seed).items() if own else ():
        scores[rule] = {
            name: score_rule(answer, records, task.is_right) for name, records in own.items()
        }
        first = next(iter(tests))
        for name, test in interventions.items() if first in own else ():
            before, after = (list(map(answer, x)) for x in (own[first], _records(test)))
            scores[rule][changed_name(name)] = changed_answers(before, after)
    return scores


CHANGED = "changed_answers"


def changed_name(intervention: str) -> str:
    """Return the name of the share of answers that an intervention changes."""
    return CHANGED + ("" if intervention == SPURIOUS else f"_{intervention}")


def changing_intervention(score: str) -> str | None:
    """Return the intervention that a score of this name is of; None of other scores."""
    if not score.startswith(CHANGED):
        return None
    return score.removeprefix(CHANGED).removeprefix("_") or SPURIOUS


def _records(test: TestSet) -> list[Record]:
    return [record for record in test.records if isinstance(record, Record)]
