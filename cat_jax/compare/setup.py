"""What the methods of one seed share: records, aligned examples, test sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from cat_jax.collector import collector_paused
from cat_jax.compare.methods import Method
from cat_jax.config import Guidance, Training
from cat_jax.data.alignment import Example
from cat_jax.data.duplicates import Duplicates
from cat_jax.errors import InputError
from cat_jax.evaluation.rules import evaluate_rules
from cat_jax.evaluation.suite import answer_test_set
from cat_jax.evaluation.testsets import TestSet, make_interventions, make_test_sets
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
        data: Training examples by method; the same object where the records are the same.
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


@collector_paused()
def setup_comparison(
    start: Start,
    task: Task,
    methods: Sequence[Method],
    guidance: Guidance | None,
    train: Training,
    seed: int,
) -> ComparisonSetup:
    """Read and align all data of one seed; load no parameters.

    Only the file ``train.unmatched`` is written.

    Raises:
        InputError: Whatever is wrong with data, tokenizer or settings.
    """
    reserved = [name for name in task.test_splits if name in RESERVED]
    if reserved:
        raise InputError(
            f"data.test_files: {reserved[0]!r} means something else in reports; rename that file"
        )
    own = {method.name: method.guidance(guidance) for method in methods}
    records = task.records(TRAIN, seed)
    prompts = dict.fromkeys(method.prompt for method in methods)
    asked = [prompt(record) for prompt in prompts if prompt is not None for record in records]
    tokenizer = make_tokenizer(start, [*records, *asked])
    tests = {
        prompt: make_test_sets(
            task,
            tokenizer,
            seed=seed,
            max_length=train.max_length,
            match=train.match,
            prompt=prompt,
        )
        for prompt in prompts
    }
    edited = {
        prompt: make_interventions(
            task, sets, tokenizer, seed=seed, match=train.match, prompt=prompt
        )
        for prompt, sets in tests.items()
    }
    check_start(start, tokenizer, train, own.values())
    unlisted = replace(train, unmatched=None)  # one list for all methods
    data: dict[str, TrainingData] = {}
    aligned: dict[Any, TrainingData] = {}
    for method in methods:
        trained = method.records, method.prompt
        if trained not in aligned:
            chosen = method.training_records(task, seed, records)
            aligned[trained] = align_training(chosen, tokenizer, unlisted, seed, guided=False)
        data[method.name] = aligned[trained]
        data[method.name].check_annotated(own[method.name] is not None)
    write_unmatched(train.unmatched, *(found.stats for found in aligned.values()))
    first = next(iter(tests.values()))  # of any prompt: its records are the task's
    setup = ComparisonSetup(
        start,
        task,
        seed,
        tokenizer,
        {method.name: tests[method.prompt] for method in methods},
        {method.name: edited[method.prompt] for method in methods},
        own,
        data,
        some_duplicates(records, {name: test.records for name, test in first.items()}),
        evaluate_rules(task, first, next(iter(edited.values())), seed=seed),
    )
    _check_best(train.best, setup)
    return setup


def _check_best(best: str | None, setup: ComparisonSetup) -> None:
    measured = list(setup.curve_sets)
    if VALIDATION in setup.task.splits:
        measured += ["next_token_loss", "token_accuracy", "perplexity"]
    if any(example.causal_count.any() for example in setup.curve_examples):
        measured.append("causal_mass")
    check_best(best, measured)
