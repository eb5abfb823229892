"""Evaluation of a model on a task: each test set is decoded once, and every score reads that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from cat_jax.data.alignment import Match
from cat_jax.evaluation.answers import (
    answer_matches,
    answer_texts,
    changed_answers,
    decode_answers,
)
from cat_jax.evaluation.causal_mass import CausalMass, measure_causal_mass
from cat_jax.evaluation.rules import changed_name
from cat_jax.evaluation.testsets import TestSet, make_interventions, make_test_sets
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import Task


def is_absolute(score: str) -> bool:
    """Tell whether a score is in units of the answer; all others are shares."""
    return score.endswith("absolute_error")


@dataclass(frozen=True)
class TestAnswers:
    """A model's answers to a test set.

    Attributes:
        answers: Parsed answers.
        targets: Right answers.
        right: Whether each answer is right, bool.
        mass: Causal mass on the annotated records; None where it was not measured.
        measures: Means of the task's further measures; NaN where no answer has one.
    """

    __test__ = False

    answers: list[str]
    targets: list[str]
    right: np.ndarray
    mass: CausalMass | None
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def exact_match(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Evaluation(Mapping[str, TestAnswers]):
    """What a model does on a task: answers by test set, and what interventions change.

    Attributes:
        task: Name of the task.
        sets: Answers by test set.
        changed: Share of the first test set's answers that each intervention changes.
    """

    task: str
    sets: dict[str, TestAnswers]
    changed: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> TestAnswers:
        return self.sets[name]

    def __iter__(self):
        return iter(self.sets)

    def __len__(self) -> int:
        return len(self.sets)

    @property
    def causal_mass(self) -> float:
        """Mean causal mass on the first test set; NaN if it is not annotated."""
        mass = next(iter(self.sets.values())).mass
        return math.nan if mass is None else mass.mean

    @property
    def scores(self) -> dict[str, float]:
        """Return exact match by test set, causal mass, changed answers, further measures."""
        scores = {name: found.exact_match for name, found in self.sets.items()}
        scores["causal_mass"] = self.causal_mass
        scores |= {changed_name(name): share for name, share in self.changed.items()}
        return scores | {
            f"{name}_{measure}": value
            for name, found in self.sets.items()
            for measure, value in found.measures.items()
        }

    def __str__(self) -> str:
        scores = {name: x for name, x in self.scores.items() if not math.isnan(x)}
        shown = (
            f"{name} {x:.2f}" if is_absolute(name) else f"{name} {x:.1%}"
            for name, x in scores.items()
        )
        return f"{self.task}: {', '.join(shown)}"


def evaluate(
    run: LanguageModel,
    task: Task,
    *,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    max_length: int | None = None,
    match: Match = "offsets",
    batch_size: int = 256,
) -> Evaluation:
    """Answer the test sets of a task, greedily, and score the answers.

    Args:
        run: The model: a result of ``fit``, or any ``LanguageModel``.
        task: The task.
        splits: Test sets; all of the task by default. Interventions edit the first of them.
        seed: Seed of generated test records and of interventions.
        max_length: Longest test record in tokens; at most, and by default, the model's
            ``max_positions``.
        match: How annotated words are found.
        batch_size: Prompts that are decoded at a time.

    Raises:
        InputError: The task has no test set, or a test record does not fit.
    """
    limit = run.model.config.max_positions
    max_length = limit if max_length is None else min(max_length, limit)
    tests = make_test_sets(
        task, run.tokenizer, splits=splits, seed=seed, max_length=max_length, match=match
    )
    edited = make_interventions(task, tests, run.tokenizer, seed=seed, match=match)
    return evaluate_test_sets(run, task, tests, edited, batch_size=batch_size)


def evaluate_test_sets(
    run: LanguageModel,
    task: Task,
    tests: Mapping[str, TestSet],
    interventions: Mapping[str, TestSet],
    *,
    batch_size: int = 256,
) -> Evaluation:
    """Evaluate on test sets that are made already; see ``evaluate``.

    Args:
        run: The model.
        task: Judges the answers.
        tests: From ``make_test_sets``.
        interventions: From ``make_interventions``.
        batch_size: Prompts that are decoded at a time.
    """
    sets = {
        name: answer_test_set(run, task, test, batch_size=batch_size)
        for name, test in tests.items()
    }
    first = next(iter(sets.values()))
    changed = {
        name: changed_answers(
            first.answers, _parsed(run, task, _answer_ids(run, test, batch_size), test)
        )
        for name, test in interventions.items()
    }
    return Evaluation(task.name, sets, changed)


def answer_test_set(
    run: LanguageModel,
    task: Task,
    test: TestSet,
    *,
    with_mass: bool = True,
    batch_size: int = 256,
) -> TestAnswers:
    """Answer a test set, judge the answers and, ``with_mass``, measure the causal mass.

    A task that judges answers itself does so by their text. Otherwise tokens that say the same as
    those of the right answer are right too (``answer_matches``): decoding may change a text.
    """
    ids = _answer_ids(run, test, batch_size)
    given = _parsed(run, task, ids, test)
    right = [task.is_right(a, t) for a, t in zip(given, test.targets, strict=True)]
    if _judges_by_default(task):
        matches = (
            answer_matches(answer, example, run.tokenizer, end_ids=run.stop_ids)
            for answer, example in zip(ids, test.examples, strict=True)
        )
        right = [a or b for a, b in zip(right, matches, strict=True)]
    mass = measure_causal_mass(run.model, run.params, test.examples) if with_mass else None
    return TestAnswers(
        given, test.targets, np.array(right, bool), mass, _measures(task, given, test.targets)
    )


def _measures(task: Task, answers: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Average the task's further measures, NaN left out."""
    found: dict[str, list[float]] = {}
    for answer, target in zip(answers, targets, strict=True):
        for name, value in task.measures(answer, target).items():
            found.setdefault(name, []).append(value)
    known = {name: [x for x in values if not math.isnan(x)] for name, values in found.items()}
    return {name: fmean(values) if values else math.nan for name, values in known.items()}


def _answer_ids(run: LanguageModel, test: TestSet, batch_size: int) -> list[list[int]]:
    return decode_answers(
        run.model,
        run.params,
        run.tokenizer,
        test.examples,
        end_ids=run.stop_ids,
        batch_size=batch_size,
    )


def _parsed(
    run: LanguageModel, task: Task, ids: Sequence[Sequence[int]], test: TestSet
) -> list[str]:
    texts = answer_texts(ids, run.tokenizer)
    return [task.parse_reply(text, x) for text, x in zip(texts, test.records, strict=True)]


def _judges_by_default(task: Task) -> bool:
    own = type(task)
    rules = ("is_right", "parse_answer", "parse_reply")
    return all(getattr(own, name) is getattr(Task, name) for name in rules)
