"""Evaluation of a model on a task: each test set is decoded once, and every score reads that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example, Match, align_records
from cat_jax.data.conversations import TRAINED_ROLE, TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation.answers import answer_range, answers, changed_answers
from cat_jax.evaluation.causal_mass import CausalMass, measure_causal_mass
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import Task


@dataclass(frozen=True)
class TestSet:
    """Test records, aligned, with the right answers."""

    __test__ = False  # for pytest

    records: list[TrainingRecord]
    examples: list[Example]
    targets: list[str]

    def __getitem__(self, items: slice) -> "TestSet":
        return TestSet(self.records[items], self.examples[items], self.targets[items])


@dataclass(frozen=True)
class TestAnswers:
    """A model's answers to a test set.

    Attributes:
        answers: Parsed answers.
        targets: Right answers.
        right: Whether each answer is right, bool.
        mass: Causal mass on the annotated records; None where it was not measured.
    """

    __test__ = False

    answers: list[str]
    targets: list[str]
    right: np.ndarray
    mass: CausalMass | None

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
        """Return exact match by test set, causal mass, and changed answers by intervention."""
        scores = {name: found.exact_match for name, found in self.sets.items()}
        scores["causal_mass"] = self.causal_mass
        names = {"spurious": "changed_answers"}
        return scores | {
            names.get(name, f"changed_answers_{name}"): share
            for name, share in self.changed.items()
        }

    def __str__(self) -> str:
        shown = (f"{name} {x:.1%}" for name, x in self.scores.items() if not math.isnan(x))
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
        max_length: Longest test record in tokens; the model's limit by default.
        match: How annotated words are found.
        batch_size: Prompts that are decoded at a time.

    Raises:
        InputError: The task has no test set, or a test record does not fit.
    """
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
        name: changed_answers(first.answers, _parsed_answers(run, task, test, batch_size))
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
    """Answer a test set, judge the answers and, ``with_mass``, measure the causal mass."""
    given = _parsed_answers(run, task, test, batch_size)
    right = [task.is_right(a, t) for a, t in zip(given, test.targets, strict=True)]
    mass = measure_causal_mass(run.model, run.params, test.examples) if with_mass else None
    return TestAnswers(given, test.targets, np.array(right, bool), mass)


def make_interventions(
    task: Task,
    tests: Mapping[str, TestSet],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    match: Match = "offsets",
) -> dict[str, TestSet]:
    """Edit the first test set by each intervention of the task.

    Raises:
        InputError: A record cannot be edited, or not be answered after that.
    """
    edited = {}
    for name, intervene in task.interventions.items():
        first, test = next(iter(tests.items()))
        rng = np.random.default_rng(seed)
        records = [intervene(record, rng) for record in test.records if isinstance(record, Record)]
        if len(records) < len(test.records):
            raise InputError(
                f"test set {first!r} has conversations, which the interventions of task "
                f"{task.name} cannot edit; name a test set of records first"
            )
        edited[name] = make_test_set(f"{first}, {name}", records, tokenizer, match=match)
    return edited


def make_test_sets(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    max_length: int | None = None,
    match: Match = "offsets",
) -> dict[str, TestSet]:
    """Align the test sets of a task, by name.

    Raises:
        InputError: The task has no test set, or a record that cannot be answered.
    """
    names = task.test_splits if splits is None else splits
    if not names:
        raise InputError(
            f"task {task.name} has no test set; give --data.iid, --data.ood or --data.test-files"
        )
    return {
        name: make_test_set(
            name, task.records(name, seed), tokenizer, max_length=max_length, match=match
        )
        for name in names
    }


def make_test_set(
    name: str,
    records: Sequence[TrainingRecord],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    match: Match = "offsets",
) -> TestSet:
    """Align test records.

    Raises:
        InputError: A record is too long, has no prompt, or has a word that the tokenizer does not
            know; leaving it out would give the accuracy of other records.
    """
    limit = tokenizer.model_max_length if max_length is None else max_length
    examples, stats = align_records(records, tokenizer, max_length=limit, match=match)
    if stats.too_long:
        raise InputError(
            f"test set {name!r}: {stats.too_long} of {len(records)} records are longer than "
            f"{limit} tokens; raise train.max_length"
        )
    starts = [answer_range(example).start for example in examples]
    unknown = tokenizer.unk_token_id
    pairs = zip(examples, starts, strict=True)
    # An unknown token that joins the prompt to the answer counts as the answer's: look at one
    # token at least.
    count = sum(bool((e.tokens[: max(1, start)] == unknown).any()) for e, start in pairs)
    if unknown is not None and count:
        raise InputError(
            f"test set {name!r}: {count} of {len(records)} prompts have words that the tokenizer "
            "does not know; use a pretrained model, or training records with the same words"
        )
    if 0 in starts:
        raise InputError(
            f"test set {name!r}: record {starts.index(0) + 1} has no prompt to answer; test "
            "records need 'input' and 'target', or 'messages'"
        )
    return TestSet(list(records), examples, [_target(record) for record in records])


def _target(record: TrainingRecord) -> str:
    if isinstance(record, Record):
        return record.target
    return next(m.content for m in reversed(record.messages) if m.role == TRAINED_ROLE)


def _parsed_answers(run: LanguageModel, task: Task, test: TestSet, batch_size: int) -> list[str]:
    given = answers(run.model, run.params, run.tokenizer, test.examples, batch_size=batch_size)
    return [task.parse_answer(answer) for answer in given]
