"""Training records as aligned examples, and what is checked of them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.config import Training
from cat_jax.data.alignment import AlignmentStats, Example, align_records
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.packing import filled, pack_examples
from cat_jax.errors import InputError


@dataclass(frozen=True)
class TrainingData:
    """Aligned (and packed) training examples, and what the alignment found."""

    examples: list[Example]
    stats: AlignmentStats

    def check_annotated(self, guided: bool) -> None:
        """Raise InputError if training is ``guided`` and no record is annotated."""
        if guided and self.stats.records_without_mask == self.stats.records:
            raise InputError(
                "no training record has an annotation whose words stand in its text; CAT needs the "
                "field 'important'"
            )

    def __str__(self) -> str:
        length = max(len(example.tokens) for example in self.examples)
        return (
            f"{self.stats.records} records in {len(self.examples)} sequences of {length} tokens, "
            f"{filled(self.examples):.1%} of them not padding"
        )


def align_training(
    records: Sequence[TrainingRecord] | Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    train: Training,
    seed: int,
    *,
    guided: bool,
) -> TrainingData:
    """Align (and pack) training records, and check that there is something to train on.

    Raises:
        InputError: Too few records fit, or none is annotated although training is ``guided``.
    """
    examples, stats = align_or_take(records, tokenizer, train)
    packed = ""
    if train.pack:
        examples = pack_examples(examples, length=train.max_length, seed=seed)
        packed = f" and are packed into {len(examples)} sequences"
    if len(examples) < train.batch_size:
        raise InputError(
            f"{stats.records} of {len(records)} training records fit in {train.max_length} tokens"
            f"{packed}, fewer than one batch of {train.batch_size}; add records, "
            f"{'lower' if packed else 'raise'} train.max_length or lower train.batch_size"
        )
    data = TrainingData(examples, stats)
    data.check_annotated(guided)
    return data


def align_or_take(
    records: Sequence[TrainingRecord] | Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    train: Training,
) -> tuple[list[Example], AlignmentStats]:
    """Align records as the configuration asks; examples are aligned already."""
    taken = [item for item in records if isinstance(item, Example)]
    if not taken:
        return align_records(
            cast("Sequence[TrainingRecord]", records),
            tokenizer,
            max_length=train.max_length,
            match=train.match,
        )
    if len(taken) < len(records):
        raise InputError("records and examples are mixed; give one kind")
    fit = [example for example in taken if len(example.tokens) <= train.max_length]
    bare = sum(not example.causal_count.any() for example in fit)
    stats = AlignmentStats(
        records=len(fit), records_without_mask=bare, too_long=len(taken) - len(fit)
    )
    return fit, stats


def fingerprint(examples: Sequence[Example]) -> str:
    """Return a checksum of examples, by which a resumed run knows its data."""
    total = 0
    for example in examples:
        for name in ("tokens", "target_mask", "q_bits", "k_bits"):
            total = zlib.crc32(np.ascontiguousarray(getattr(example, name)).tobytes(), total)
    return f"{len(examples)} sequences, crc32 {total:08x}"
