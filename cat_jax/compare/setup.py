"""What the methods of one seed share: records, aligned examples, test sets."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from cat_jax.compare.methods import Method
from cat_jax.config import Guidance, Training
from cat_jax.data.alignment import Example
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.duplicates import Duplicates
from cat_jax.errors import InputError
from cat_jax.evaluation.rules import evaluate_rules
from cat_jax.evaluation.suite import answer_test_set
from cat_jax.evaluation.testsets import Prompt, TestSet, make_interventions, make_test_sets
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
        tests: Test sets by prompt and name.
        interventions: By prompt, the first test set after each intervention.
        duplicates: Test sets with records that also stand in the training data.
        rules: Scores of the task's reference rules, by rule.
        aligned: Training examples by the function that gives their records, and prompt; they are
            added when they are first needed.
    """

    records: list[TrainingRecord]
    tokenizer: PreTrainedTokenizerBase
    tests: dict[Prompt | None, dict[str, TestSet]]
    interventions: dict[Prompt | None, dict[str, TestSet]]
    duplicates: list[Duplicates]
    rules: dict[str, dict[str, float]]
    aligned: dict[Any, TrainingData] = field(default_factory=dict)


def prepare_seed(
    start: Start, task: Task, prompts: Iterable[Prompt | None], train: Training, seed: int
) -> SeedData:
    """Read the records of one seed, and align the test sets for each prompt.

    Raises:
        InputError: Whatever is wrong with data or tokenizer.
    """
    reserved = [name for name in task.test_splits if name in RESERVED]
    if reserved:
        raise InputError(
            f"data.test_files: {reserved[0]!r} means something else in reports; rename that file"
        )
    prompts, records = dict.fromkeys(prompts), task.records(TRAIN, seed)
    asked = [prompt(record) for prompt in prompts if prompt is not None for record in records]
    tokenizer = make_tokenizer(start, [*records, *asked])
    options: dict[str, Any] = {"seed": seed, "match": train.match}
    tests = {
        prompt: make_test_sets(
            task, tokenizer, max_length=train.max_length, prompt=prompt, **options
        )
        for prompt in prompts
    }
    edited = {
        prompt: make_interventions(task, sets, tokenizer, prompt=prompt, **options)
        for prompt, sets in tests.items()
    }
    first = next(iter(tests.values()))  # of any prompt: its records are the task's
    return SeedData(
        records,
        tokenizer,
        tests,
        edited,
        some_duplicates(records, {name: test.records for name, test in first.items()}),
        evaluate_rules(task, first, next(iter(edited.values())), seed=seed),
    )


def setup_comparison(
    start: Start,
    task: Task,
    methods: Sequence[Method],
    guidance: Guidance | None,
    train: Training,
    seed: int,
    *,
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
        prepared: From ``prepare_seed`` with the same arguments and the prompts of the methods.

    Raises:
        InputError: Whatever is wrong with data, tokenizer or settings.
    """
    own = {method.name: method.guidance(guidance) for method in methods}
<<<<<<< HEAD
    records = task.records(TRAIN, seed)
    asked = [
        # Without training one record has all words that a prompt adds.
        record
        for method in methods
        if method.prompt is not None
        for record in method.asked(task, seed, records if method.trains else records[:1])
    ]
    tokenizer = make_tokenizer(start, [*records, *asked])
    objectives = [(own[method.name], method.regularizer) for method in methods]
    longest = check_start(start, tokenizer, train, objectives).max_positions
    tests, edited = _make_tests(task, tokenizer, methods, train, longest, seed)
    unlisted = replace(train, unmatched=None)  # one list for all methods
    data: dict[str, TrainingData] = {}
    aligned: dict[Any, TrainingData] = {}
    for method in methods:
        if not method.trains:
            continue
        trained = method.records, method.prompt
        if trained not in aligned:
            chosen = method.training_records(task, seed, records)
            aligned[trained] = align_training(chosen, tokenizer, unlisted, seed, guided=False)
        data[method.name] = aligned[trained]
        data[method.name].check_annotated(
            own[method.name] is not None or method.regularizer is not None
        )
    write_unmatched(train.unmatched, *(found.stats for found in aligned.values()))
    first = next(iter(tests.values()))  # of any prompt: its records are the task's
=======
    if prepared is None:
        prepared = prepare_seed(start, task, (method.prompt for method in methods), train, seed)
    check_start(start, prepared.tokenizer, train, own.values())
    data = {method.name: _aligned(prepared, method, task, train, seed) for method in methods}
    for name, found in data.items():
        found.check_annotated(own[name] is not None)
    stats = {id(found): found.stats for found in data.values()}
    write_unmatched(train.unmatched, *stats.values())
>>>>>>> sweep
    setup = ComparisonSetup(
        start,
        task,
        seed,
<<<<<<< HEAD
        tokenizer,
        tests,
        edited,
=======
        prepared.tokenizer,
        {method.name: prepared.tests[method.prompt] for method in methods},
        {method.name: prepared.interventions[method.prompt] for method in methods},
>>>>>>> sweep
        own,
        data,
        prepared.duplicates,
        prepared.rules,
    )
    _check_best(train.best, setup)
    return setup


<<<<<<< HEAD
def _make_tests(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    methods: Sequence[Method],
    train: Training,
    longest: int,
    seed: int,
) -> tuple[dict[str, dict[str, TestSet]], dict[str, dict[str, TestSet]]]:
    """Return test sets and interventions by method, made once for each kind of prompt."""
    made: dict[Any, tuple[dict[str, TestSet], dict[str, TestSet]]] = {}
    for method in methods:
        kind = method.prompt, method.trains
        if kind not in made:
            prompt = method.prompt and method.prompt(task, seed)
            tests = make_test_sets(
                task,
                tokenizer,
                seed=seed,
                max_length=train.max_length if method.trains else longest,
                match=train.match,
                prompt=prompt,
            )
            edited = make_interventions(
                task, tests, tokenizer, seed=seed, match=train.match, prompt=prompt
            )
            made[kind] = tests, edited
    found = {method.name: made[method.prompt, method.trains] for method in methods}
    tests, edited = ({name: both[n] for name, both in found.items()} for n in (0, 1))
    return tests, edited
=======
def _aligned(
    prepared: SeedData, method: Method, task: Task, train: Training, seed: int
) -> TrainingData:
    """Return the method's training examples; those of the same records are aligned once."""
    key = method.records, method.prompt
    if key not in prepared.aligned:
        unlisted = replace(train, unmatched=None)  # one list for all methods
        records = method.training_records(task, seed)
        prepared.aligned[key] = align_training(
            records, prepared.tokenizer, unlisted, seed, guided=False
        )
    return prepared.aligned[key]
>>>>>>> sweep


def _check_best(best: str | None, setup: ComparisonSetup) -> None:
    measured = list(setup.curve_sets)
    if VALIDATION in setup.task.splits:
        measured += ["next_token_loss", "token_accuracy", "perplexity"]
    if any(example.causal_count.any() for example in setup.curve_examples):
        measured.append("causal_mass")
    check_best(best, measured)
