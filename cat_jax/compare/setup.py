"""What the methods of one seed share: records, aligned examples, test sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from cat_jax.compare.methods import Method
from cat_jax.config import Guidance, Training
from cat_jax.data.alignment import Example
from cat_jax.errors import InputError
from cat_jax.evaluation.suite import (
    TestSet,
    answer_test_set,
    make_interventions,
    make_test_sets,
)
from cat_jax.tasks.base import TRAIN, VALIDATION, Task
from cat_jax.train.result import RunResult
from cat_jax.train.setup import Start, check_start, make_tokenizer
from cat_jax.train.training_data import TrainingData, align_training

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
        tests: Test sets by name.
        interventions: The first test set after each intervention.
        guidance: Guidance by method.
        data: Training examples by method; the same object where the records are the same.
    """

    start: Start
    task: Task
    seed: int
    tokenizer: PreTrainedTokenizerBase
    tests: dict[str, TestSet]
    interventions: dict[str, TestSet]
    guidance: dict[str, Guidance | None]
    data: dict[str, TrainingData]

    @property
    def curve_examples(self) -> list[Example]:
        """Examples whose causal mass the training curves show: of the first test set."""
        return [
            e for name in self.curve_sets[:1] for e in self.tests[name][:CURVE_RECORDS].examples
        ]

    @property
    def curve_sets(self) -> list[str]:
        """Test sets of the training curves: the task's own."""
        return [name for name in self.tests if name in self.task.splits]

    def eval_metrics(self, run: RunResult) -> dict[str, float]:
        """Return exact match and causal mass on the first test records, for training curves.

        The causal mass is left out where the first test set is not annotated.
        """
        few = {name: self.tests[name][:CURVE_RECORDS] for name in self.curve_sets}
        found = {
            name: answer_test_set(run, self.task, test, with_mass=number == 0)
            for number, (name, test) in enumerate(few.items())
        }
        metrics = {name: answered.exact_match for name, answered in found.items()}
        for answered in found.values():
            if answered.mass is not None and not math.isnan(answered.mass.mean):
                metrics["causal_mass"] = answered.mass.mean
        return metrics


def setup_comparison(
    start: Start,
    task: Task,
    methods: Sequence[Method],
    guidance: Guidance | None,
    train: Training,
    seed: int,
) -> ComparisonSetup:
    """Read and align all data of one seed; write nothing, load no parameters.

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
    tokenizer = make_tokenizer(start, records)
    tests = make_test_sets(
        task, tokenizer, seed=seed, max_length=train.max_length, match=train.match
    )
    check_start(start, tokenizer, train, own.values())
    data: dict[str, TrainingData] = {}
    aligned: dict[Any, TrainingData] = {}
    for method in methods:
        if method.records not in aligned:
            aligned[method.records] = align_training(
                method.records(task, seed), tokenizer, train, seed, guided=False
            )
        data[method.name] = aligned[method.records]
        data[method.name].check_annotated(own[method.name] is not None)
    setup = ComparisonSetup(
        start,
        task,
        seed,
        tokenizer,
        tests,
        make_interventions(task, tests, tokenizer, seed=seed, match=train.match),
        own,
        data,
    )
    _check_best(train.best, setup)
    return setup


def _check_best(best: str | None, setup: ComparisonSetup) -> None:
    measured = list(setup.curve_sets)
    if VALIDATION in setup.task.splits:
        measured += ["next_token_loss", "token_accuracy", "perplexity"]
    if any(example.causal_count.any() for example in setup.curve_examples):
        measured.append("causal_mass")
    if best not in (None, *measured):
        raise InputError(
            f"train.best is {best!r}, but what is measured while training is {', '.join(measured)}"
        )
