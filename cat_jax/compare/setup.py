"""What the methods of one seed share: records, aligned examples, test sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from cat_jax.collector import collector_paused
from cat_jax.compare.methods import Method
from cat_jax.compare.methods.base import PromptMaker
from cat_jax.config import Guidance, Training
from cat_jax.data.alignment import Example
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.duplicates import Duplicates
from cat_jax.errors import InputError
from cat_jax.evaluation.rules import evaluate_rules
from cat_jax.evaluation.suite import answer_test_set
from cat_jax.evaluation.testsets import SPURIOUS, TestSet, make_interventions, make_test_sets
from cat_jax.tasks.base import TRAIN, VALIDATION, Task
from cat_jax.train.evaluations import check_best
from cat_jax.train.result import RunResult
from cat_jax.train.setup import Start, check_start, make_tokenizer
from cat_jax.train.training_data import (
    TrainingData,
    align_training,
    some_duplicates,
    write_unmatched,
)

PromptKind = tuple[PromptMaker | None, bool]
"""A method's prompt, and whether the method trains."""
CURVE_RECORDS = 200
"""Records of each test set behind a point of the training curves; the report uses all."""
RESERVED = ("causal_mass", "changed_answers", "seconds_per_step", "std", "seeds")
"""What a report holds beside the accuracy of each test set."""


@dataclass(frozen=True, eq=False)
class ComparisonSetup:
    """What the methods of one seed share.

    Attributes:
        start: Which model.
        task: Its records.
        seed: Seed.
        tokenizer: The model's tokenizer.
        tests: Test sets by method and name; the same objects where the prompts are the same.
        interventions: By method, the first test set after each intervention.
        guidance: Guidance by method.
        data: Training examples by method that trains; the same object where the records are.
        duplicates: Test sets with records that also stand in the training data.
        rules: Scores of the task's reference rules, by rule.
    """

    start: Start
    task: Task
    seed: int
    tokenizer: PreTrainedTokenizerBase
    tests: dict[str, dict[str, TestSet]]
    interventions: dict[str, dict[str, TestSet]]
    guidance: dict[str, Guidance | None]
    data: dict[str, TrainingData]
    duplicates: list[Duplicates]
    rules: dict[str, dict[str, float]]

    @property
    def curve_examples(self) -> list[Example]:
        """Examples whose causal mass the training curves show: of the first test set."""
        return [
            example
            for name in self.curve_sets[:1]
            for example in self.first_tests[name][:CURVE_RECORDS].examples
        ]

    @property
    def first_tests(self) -> dict[str, TestSet]:
        """Test sets of the first method."""
        return next(iter(self.tests.values()))

    @property
    def curve_sets(self) -> list[str]:
        """Test sets of the training curves: the task's own."""
        return [name for name in self.first_tests if name in self.task.splits]

    def eval_metrics(self, method: str, run: RunResult) -> dict[str, float]:
        """Return exact match and causal mass on the first test records, for training curves.

        The causal mass is left out where the first test set is not annotated.
        """
        few = {name: self.tests[method][name][:CURVE_RECORDS] for name in self.curve_sets}
        found = {
            name: answer_test_set(run, self.task, test, forced=number == 0)
            for number, (name, test) in enumerate(few.items())
        }
        metrics = {name: answered.exact_match for name, answered in found.items()}
        for answered in found.values():
            if answered.mass is not None and not math.isnan(answered.mass.mean):
                metrics["causal_mass"] = answered.mass.mean
        return metrics


@dataclass(frozen=True, eq=False)
class SeedData:
    """What does not depend on the methods of a seed but for their prompts.

    Attributes:
        records: Training records of the task.
        tokenizer: The model's tokenizer.
        tests: Test sets by kind of prompt and name; see ``prompt_kind``.
        interventions: By kind of prompt, the first test set after each intervention.
        duplicates: Test sets with records that also stand in the training data.
        rules: Scores of the task's reference rules, by rule.
        aligned: Training examples by the function that gives their records, and prompt; they are
            added when they are first needed.
    """

    records: list[TrainingRecord]
    tokenizer: PreTrainedTokenizerBase
    tests: dict[PromptKind, dict[str, TestSet]]
    interventions: dict[PromptKind, dict[str, TestSet]]
    duplicates: list[Duplicates]
    rules: dict[str, dict[str, float]]
    aligned: dict[Any, TrainingData] = field(default_factory=dict)


def prompt_kind(method: Method) -> PromptKind:
    """Return what decides the test sets of a method: its prompt, and whether it trains."""
    return method.prompt, method.trains


@collector_paused()
def prepare_seed(
    start: Start,
    task: Task,
    methods: Sequence[Method],
    train: Training,
    seed: int,
    interventions: Sequence[str] = (SPURIOUS,),
) -> SeedData:
    """Read the records of one seed, and align the test sets for each kind of prompt.

    Raises:
        InputError: Whatever is wrong with data or tokenizer.
    """
    reserved = [name for name in task.test_splits if name in RESERVED]
    if reserved:
        raise InputError(
            f"data.test_files: {reserved[0]!r} means something else in reports; rename that file"
        )
    records = task.records(TRAIN, seed)
    asked = [
        # Without training one record has all words that a prompt adds.
        record
        for method in methods
        if method.prompt is not None
        for record in method.asked(task, seed, records if method.trains else records[:1])
    ]
    tokenizer = make_tokenizer(start, [*records, *asked])
    longest = check_start(start, tokenizer, train, ()).max_positions
    tests, edited = {}, {}
    for prompt, trains in map(prompt_kind, methods):
        if (prompt, trains) in tests:
            continue
        made = tests[prompt, trains] = make_test_sets(
            task,
            tokenizer,
            seed=seed,
            max_length=train.max_length if trains else longest,
            match=train.match,
            prompt=prompt and prompt(task, seed),
        )
        edited[prompt, trains] = make_interventions(
            task,
            made,
            tokenizer,
            seed=seed,
            match=train.match,
            prompt=prompt and prompt(task, seed),
            names=interventions,
        )
    first = next(iter(tests.values()))  # of any prompt: its records are the task's
    return SeedData(
        records,
        tokenizer,
        tests,
        edited,
        some_duplicates(records, {name: test.records for name, test in first.items()}),
        evaluate_rules(task, first, next(iter(edited.values())), seed=seed),
    )


@collector_paused()
def setup_comparison(
    start: Start,
    task: Task,
    methods: Sequence[Method],
    guidance: Guidance | None,
    train: Training,
    seed: int,
    *,
    interventions: Sequence[str] = (SPURIOUS,),
    prepared: SeedData | None = None,
) -> ComparisonSetup:
    """Read and align all data of one seed; load no parameters.

    Only the file ``train.unmatched`` is written.

    Args:
        start: Which model.
        task: Its records.
        methods: Methods to prepare for.
        guidance: Second objective of the method "cat".
        train: Training loop.
        seed: Seed.
        interventions: Names of the task's interventions that test records are edited by.
        prepared: From ``prepare_seed`` with the same arguments, and methods of the same prompts.

    Raises:
        InputError: Whatever is wrong with data, tokenizer or settings.
    """
    own = {method.name: method.guidance(guidance) for method in methods}
    if prepared is None:
        prepared = prepare_seed(start, task, methods, train, seed, interventions)
    objectives = [(own[method.name], method.regularizer) for method in methods]
    check_start(start, prepared.tokenizer, train, objectives)
    data = {
        method.name: _aligned(prepared, method, task, train, seed)
        for method in methods
        if method.trains
    }
    for method in methods:
        if method.trains:
            needs_causes = own[method.name] is not None or method.regularizer is not None
            data[method.name].check_annotated(needs_causes)
    stats = {id(found): found.stats for found in data.values()}
    write_unmatched(train.unmatched, *stats.values())
    setup = ComparisonSetup(
        start,
        task,
        seed,
        prepared.tokenizer,
        {method.name: prepared.tests[prompt_kind(method)] for method in methods},
        {method.name: prepared.interventions[prompt_kind(method)] for method in methods},
        own,
        data,
        prepared.duplicates,
        prepared.rules,
    )
    _check_best(train.best, setup)
    return setup


def _aligned(
    prepared: SeedData, method: Method, task: Task, train: Training, seed: int
) -> TrainingData:
    """Return the method's training examples; those of the same records are aligned once."""
    key = method.records, method.prompt
    if key not in prepared.aligned:
        unlisted = replace(train, unmatched=None)  # one list for all methods
        records = method.training_records(task, seed, prepared.records)
        prepared.aligned[key] = align_training(
            records, prepared.tokenizer, unlisted, seed, guided=False
        )
    return prepared.aligned[key]


def _check_best(best: str | None, setup: ComparisonSetup) -> None:
    measured = list(setup.curve_sets)
    if VALIDATION in setup.task.splits:
        measured += ["next_token_loss", "token_accuracy", "perplexity"]
    if any(example.causal_count.any() for example in setup.curve_examples):
        measured.append("causal_mass")
    check_best(best, measured)
