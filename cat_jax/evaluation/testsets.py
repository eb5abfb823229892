"""Test sets of a task: records, aligned, with the right answers."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example, Match, align_records
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation.answers import answer_range, answer_texts
from cat_jax.tasks.base import Intervention, Task

logger = logging.getLogger(__name__)

SPURIOUS = "spurious"
"""Intervention that redraws what must not matter."""

Prompt = Callable[[TrainingRecord], TrainingRecord]
"""Rewrites the prompt of a record."""


@dataclass(frozen=True)
class TestSet:
    """Test records, aligned, with the right answers.

    Attributes:
        records: The records as the task has them.
        examples: The records aligned, with the prompts that are asked.
        targets: The right answers.
        groups: Groups of the records (``Task.group``).
    """

    __test__ = False  # for pytest

    records: list[TrainingRecord]
    examples: list[Example]
    targets: list[str]
    groups: list[str | None]

    def __getitem__(self, items: slice) -> "TestSet":
        return TestSet(
            self.records[items], self.examples[items], self.targets[items], self.groups[items]
        )


def make_interventions(
    task: Task,
    tests: Mapping[str, TestSet],
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    match: Match = "offsets",
    prompt: Prompt | None = None,
    names: Sequence[str] = (SPURIOUS,),
) -> dict[str, TestSet]:
    """Edit the first test set by interventions of the task, before ``prompt`` rewrites it.

    "spurious" is left out of a task that has none; any other of ``names`` must be there.

    Raises:
        InputError: The task has no such intervention, or a record cannot be edited, or not be
            answered after that.
    """
    edited = {}
    for name, intervene in _find_interventions(task, names).items():
        first, test = next(iter(tests.items()))
        rng = np.random.default_rng(seed)
        records = [intervene(record, rng) for record in test.records if isinstance(record, Record)]
        if len(records) < len(test.records):
            raise InputError(
                f"test set {first!r} has conversations, which the interventions of task "
                f"{task.name} cannot edit; name a test set of records first"
            )
        edited[name] = make_test_set(
            f"{first}, {name}", records, tokenizer, match=match, prompt=prompt, group=task.group
        )
    return edited


def _find_interventions(task: Task, names: Sequence[str]) -> dict[str, Intervention]:
    known = task.interventions
    unknown = [name for name in names if name not in known and name != SPURIOUS]
    if unknown:
        raise InputError(
            f"task {task.name} has no intervention {unknown[0]!r}; it has "
            f"{', '.join(known) or 'none'}"
        )
    return {name: known[name] for name in names if name in known}


def make_test_sets(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    splits: Sequence[str] | None = None,
    seed: int = 0,
    max_length: int | None = None,
    match: Match = "offsets",
    prompt: Prompt | None = None,
) -> dict[str, TestSet]:
    """Align the test sets of a task, by name; ``prompt`` rewrites their records first.

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
            name,
            task.records(name, seed),
            tokenizer,
            max_length=max_length,
            match=match,
            prompt=prompt,
            group=task.group,
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
    prompt: Prompt | None = None,
    group: Callable[[TrainingRecord], str | None] = lambda record: None,
) -> TestSet:
    """Align test records; ``prompt`` rewrites them first, ``group`` names the group of each.

    Raises:
        InputError: A record is too long, has no prompt, or has a word that the tokenizer does not
            know; leaving it out would give the accuracy of other records.
    """
    limit = sys.maxsize if max_length is None else max_length
    asked = records if prompt is None else [prompt(record) for record in records]
    examples, stats = align_records(asked, tokenizer, max_length=limit, match=match)
    if stats.too_long:
        raise InputError(
            f"test set {name!r}: {stats.too_long} of {len(records)} records are longer than "
            f"{limit} tokens; shorten them, or raise max_length up to what the model reads"
        )
    if stats.unmatched:
        logger.warning("test set %r: %s", name, stats.name_unmatched())
    if stats.altered:
        raise InputError(
            f"test set {name!r}: the chat template alters {stats.altered} of {len(records)} "
            "conversations (the first is named above); write what the template leaves of them"
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
    targets = [
        _target(record, example, tokenizer) for record, example in zip(asked, examples, strict=True)
    ]
    return TestSet(list(records), examples, targets, [group(record) for record in records])


def _target(record: TrainingRecord, example: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    if isinstance(record, Record):
        return record.target
    last = next(message for message in reversed(record.messages) if message.is_trained)
    if last.tool_calls or last.reasoning_content:  # more than the words is answered
        answered = answer_range(example)
        return answer_texts([example.tokens[answered.start : answered.stop].tolist()], tokenizer)[0]
    return last.content
