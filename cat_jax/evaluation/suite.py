"""Evaluation of a model on a task: each test set is decoded once, and every score reads that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cat_jax.data.alignment import Match
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.evaluation.answers import (
    answer_matches,
    answer_texts,
    decode_answers,
)
from cat_jax.evaluation.causal_mass import measure_right_answers
from cat_jax.evaluation.forced_choice import find_choices, force_choice
from cat_jax.evaluation.results import Evaluation, TestAnswers
from cat_jax.evaluation.rules import evaluate_rules
from cat_jax.evaluation.testsets import TestSet, make_interventions, make_test_sets
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import Task


def evaluate(
    run: LanguageModel,
    task: Task,
    *,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    max_length: int | None = None,
    match: Match = "offsets",
    interventions: Sequence[str] = ("spurious",),
    forced_choice: bool = False,
    reference_rules: bool = False,
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
        interventions: Edits of the first test set to answer too, by name (``Task.interventions``);
            "spurious" is left out of a task that has none.
        forced_choice: Measure too how often the right answer is the most likely one of a test
            set's answers, where they are few (``find_choices``): what a model knows that does not
            write answers of that form.
        reference_rules: Score the task's reference rules too; they read its training records.
        batch_size: Prompts that are decoded at a time.

    Raises:
        InputError: The task has no test set or no such intervention, or a test record does not
            fit.
    """
    limit = run.model.config.max_positions
    max_length = limit if max_length is None else min(max_length, limit)
    tests = make_test_sets(
        task, run.tokenizer, splits=splits, seed=seed, max_length=max_length, match=match
    )
    edited = make_interventions(
        task, tests, run.tokenizer, seed=seed, match=match, names=interventions
    )
    found = evaluate_test_sets(run, task, tests, edited, batch_size=batch_size)
    sets = found.sets
    if forced_choice:
        sets = {name: _with_forced_choice(run, answered) for name, answered in sets.items()}
    rules = evaluate_rules(task, tests, edited, seed=seed) if reference_rules else {}
    return replace(found, sets=sets, rules=rules)


def _with_forced_choice(run: LanguageModel, found: TestAnswers) -> TestAnswers:
    choices = find_choices(found.records)
    if choices is None:
        return found
    forced = force_choice(run, found.records, choices).answers
    right = [a == t.strip() for a, t in zip(forced, _own_targets(found.records), strict=True)]
    return replace(found, measured=found.measured | {"forced_choice": np.array(right, float)})


def _own_targets(records: Sequence[TrainingRecord]) -> list[str]:
    return [record.target for record in records if isinstance(record, Record)]


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
    edited = {
        name: answer_test_set(run, task, test, forced=False, batch_size=batch_size)
        for name, test in interventions.items()
    }
    return Evaluation(task.name, sets, edited)


def answer_test_set(
    run: LanguageModel,
    task: Task,
    test: TestSet,
    *,
    forced: bool = True,
    batch_size: int = 256,
) -> TestAnswers:
    """Answer a test set and judge the answers.

    A task that judges answers itself does so by their text. Otherwise tokens that say the same as
    those of the right answer are right too (``answer_matches``): decoding may change a text.

    Args:
        run: The model.
        task: Judges the answers.
        test: From ``make_test_sets``.
        forced: Measure the causal mass too, and how probable the right answers are: a forward pass
            more.
        batch_size: Prompts that are decoded at a time.
    """
    ids = decode_answers(
        run.model,
        run.params,
        run.tokenizer,
        test.examples,
        end_ids=run.stop_ids,
        batch_size=batch_size,
    )
    replies = answer_texts(ids, run.tokenizer)
    given = [task.parse_reply(text, x) for text, x in zip(replies, test.records, strict=True)]
    mass, log_probs = (
        measure_right_answers(run.model, run.params, test.examples) if forced else (None, None)
    )
    return TestAnswers(
        given,
        [task.parse_answer(target) for target in test.targets],
        _judged(run, task, test, ids, given),
        mass,
        _measured(task, given, test.targets),
        replies,
        test.records,
        log_probs,
        test.groups,
    )


def _judged(
    run: LanguageModel,
    task: Task,
    test: TestSet,
    ids: Sequence[Sequence[int]],
    given: Sequence[str],
) -> np.ndarray:
    right = [task.is_right(a, t) for a, t in zip(given, test.targets, strict=True)]
    if _judges_by_default(task):
        matches = (
            answer_matches(answer, example, run.tokenizer, end_ids=run.stop_ids)
            for answer, example in zip(ids, test.examples, strict=True)
        )
        right = [a or b for a, b in zip(right, matches, strict=True)]
    return np.array(right, bool)


def _measured(task: Task, answers: Sequence[str], targets: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the task's further measures of each answer, NaN where it has none."""
    found = [task.measures(a, t) for a, t in zip(answers, targets, strict=True)]
    names = dict.fromkeys(name for measures in found for name in measures)
    return {name: np.array([x.get(name, math.nan) for x in found], float) for name in names}


def _judges_by_default(task: Task) -> bool:
    own = type(task)
    rules = ("is_right", "parse_answer", "parse_reply")
    return all(getattr(own, name) is getattr(Task, name) for name in rules)
