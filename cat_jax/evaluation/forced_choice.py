"""Forced choice: which of a few answers a model finds most likely.

What an untuned model knows of a task with few answers, whether or not it would write one of them.
It is the accuracy of multiple-choice benchmarks: the answer whose tokens have the largest summed
log-probability after the prompt, the end of the answer left out (Brown et al., "Language models are
few-shot learners", NeurIPS 2020, section 2.4; lm-evaluation-harness, ``acc``). Of answers that
differ in length, the short ones are favoured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cat_jax.data.alignment import Example, align_records
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation.answers import answer_range
from cat_jax.evaluation.likelihood import answer_log_probabilities
from cat_jax.models.language_model import LanguageModel

MOST_CHOICES = 10
"""How many different answers are few."""


@dataclass(frozen=True)
class ForcedChoices:
    """The answers that a model finds most likely.

    Attributes:
        choices: Answers to choose from, C of them.
        log_probabilities_RC: Log-probability of each after the prompt of each record, [R, C]
            float64, in nats.
    """

    choices: tuple[str, ...]
    log_probabilities_RC: np.ndarray

    @property
    def answers(self) -> list[str]:
        """The most likely choice of each record; of equals the first."""
        return [self.choices[n] for n in self.log_probabilities_RC.argmax(1).tolist()]


def find_choices(records: Sequence[TrainingRecord]) -> tuple[str, ...] | None:
    """Return the different answers of records, sorted; None if they are no few ones to choose from.

    They are few if there are 2 to 10, and each occurs twice on average at least. Conversations have
    none.
    """
    if not all(isinstance(record, Record) for record in records):
        return None
    targets = sorted({record.target.strip() for record in records if isinstance(record, Record)})
    few = 2 <= len(targets) <= min(MOST_CHOICES, len(records) // 2)
    return tuple(targets) if few else None


def force_choice(
    run: LanguageModel,
    records: Sequence[TrainingRecord],
    choices: Sequence[str],
    *,
    batch_size: int = 64,
) -> ForcedChoices:
    """Compare how likely a model finds some answers to each record.

    Args:
        run: The model.
        records: Records with the prompts that are asked; their own answers are not looked at.
        choices: Answers to choose from.
        batch_size: Prompts with an answer that are computed at a time.

    Raises:
        InputError: Fewer than two different choices, no record, a conversation, or a record that
            is longer than the model reads.
    """
    if len(set(choices)) < max(len(choices), 2):
        raise InputError(
            f"forced choice needs different answers, two at least, not {', '.join(choices)}"
        )
    answered = [_answered(record, choice) for record in records for choice in choices]
    if not answered:
        raise InputError("forced choice needs a record; there is none")
    most = run.model.config.max_positions
    examples, stats = align_records(answered, run.tokenizer, max_length=most)
    if stats.too_long:
        raise InputError(
            f"forced choice: {stats.too_long} of {len(answered)} records with an answer are longer "
            f"than {most} tokens, all that the model reads; shorten them"
        )
    found = answer_log_probabilities(
        run.model, run.params, [_without_end(x) for x in examples], batch_size=batch_size
    )
    return ForcedChoices(tuple(choices), found.reshape(len(records), len(choices)))


def _answered(record: TrainingRecord, choice: str) -> Record:
    if not isinstance(record, Record):
        raise InputError("forced choice takes prompts and answers, but a record is a conversation")
    return Record(record.input, choice, where=record.where)


def _without_end(example: Example) -> Example:
    """Leave out the end token: an untuned model does not know that an answer ends there."""
    mask = example.target_mask.copy()
    mask[answer_range(example)[-1]] = False
    return replace(example, target_mask=mask)
