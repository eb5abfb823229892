"""Training and validation records as aligned examples, and what is checked of them."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase

from cat_jax.config import Training
from cat_jax.data.alignment import Example, align_records
from cat_jax.data.alignment_stats import AlignmentStats
from cat_jax.data.batches import common_shape
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.duplicates import Duplicates, find_duplicates
from cat_jax.data.ends import taught_end_ids
from cat_jax.data.packing import filled, pack_examples
from cat_jax.data.shards import ShardedExamples
from cat_jax.distributed import is_primary
from cat_jax.errors import InputError
from cat_jax.files import one_line, write_lines
from cat_jax.train.fingerprint import Fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Aligned (and packed) examples.

    Attributes:
        examples: What is trained or validated on.
        stats: What the alignment found.
        fingerprint: Fingerprint of the records before packing.
        end_ids: Special tokens that the examples teach as ends of answers.
    """

    examples: Sequence[Example]
    stats: AlignmentStats
    fingerprint: Fingerprint
    end_ids: tuple[int, ...] = ()

    def check_annotated(self, guided: bool) -> None:
        """Raise InputError if training is ``guided`` and no query sees an annotated cause."""
        stats = self.stats
        if not guided or stats.records_without_mask < stats.records:
            return
        if stats.unmatched:
            raise InputError(
                f"no training record can be guided: {stats.name_unmatched()}; correct the words "
                "(docs/finetuning.md, Matching) or give their 'start'"
            )
        if stats.spans_asked:
            raise InputError(
                "no training record can be guided: every cause comes after its effect, which never "
                "sees it; annotate causes that come before"
            )
        left_out = f" ({stats.too_long} too long ones are left out)" if stats.too_long else ""
        raise InputError(
            f"no training record is annotated{left_out}; guidance needs the field 'important'"
        )

    def __str__(self) -> str:
        length, _ = common_shape(self.examples)
        given = self.examples
        share = given.manifest.filled if isinstance(given, ShardedExamples) else filled(given)
        return (
            f"{self.stats.records} records in {len(self.examples)} sequences of {length} tokens, "
            f"{share:.1%} of them not padding"
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
        InputError: Too few records fit, none is annotated although training is ``guided``, or
            ``train.unmatched`` cannot be written.
    """
    if isinstance(records, ShardedExamples):
        return _take_shards(records, tokenizer, train, guided=guided)
    examples, stats = align_or_take(records, tokenizer, train)
    write_unmatched(train.unmatched, stats)
    end_ids = taught_end_ids(examples, tokenizer.all_special_ids)
    fingerprint = Fingerprint.of(examples)
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
    data = TrainingData(examples, stats, fingerprint, end_ids)
    data.check_annotated(guided)
    return data


def _take_shards(
    examples: ShardedExamples, tokenizer: PreTrainedTokenizerBase, train: Training, *, guided: bool
) -> TrainingData:
    """Return prepared examples, if training would have made the same.

    Raises:
        InputError: They are of another tokenizer or alignment, or too few.
    """
    examples.check(tokenizer, max_length=train.max_length, match=train.match, pack=train.pack)
    if train.unmatched is not None:
        raise InputError(
            "train.unmatched lists words while records are aligned, and prepared shards are "
            "aligned already; leave it out"
        )
    if len(examples) < train.batch_size:
        raise InputError(
            f"{examples.folder} holds {len(examples)} sequences, fewer than one batch of "
            f"{train.batch_size}; add records or lower train.batch_size"
        )
    manifest = examples.manifest
    data = TrainingData(examples, manifest.stats, Fingerprint.of_shards(manifest), manifest.end_ids)
    data.check_annotated(guided)
    return data


def align_validation(
    records: Sequence[TrainingRecord] | Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    train: Training,
    seed: int,
) -> TrainingData | None:
    """Align (and pack) validation records; None if there are none.

    Raises:
        InputError: No validation record is short enough.
    """
    if not records:
        return None
    if isinstance(records, ShardedExamples):
        records = list(records)  # all of them are measured every time
    examples, stats = align_or_take(records, tokenizer, train)
    if not examples:
        raise InputError(
            f"none of {len(records)} validation records fits in {train.max_length} tokens; raise "
            "train.max_length"
        )
    fingerprint = Fingerprint.of(examples)
    if train.pack:
        examples = pack_examples(examples, length=train.max_length, seed=seed)
    return TrainingData(examples, stats, fingerprint)


def fingerprints(training: TrainingData, validation: TrainingData | None) -> dict[str, Fingerprint]:
    """Return the fingerprints of a run's data by its use."""
    used = {"training": training, "validation": validation}
    return {use: data.fingerprint for use, data in used.items() if data is not None}


def align_or_take(
    records: Sequence[TrainingRecord] | Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    train: Training,
) -> tuple[list[Example], AlignmentStats]:
    """Align records as the configuration asks; examples are aligned already.

    A warning names annotated words that were not found.
    """
    taken = [item for item in records if isinstance(item, Example)]
    if not taken:
        examples, stats = align_records(
            cast("Sequence[TrainingRecord]", records),
            tokenizer,
            max_length=train.max_length,
            match=train.match,
        )
        if stats.unmatched:
            logger.warning("%s", stats.name_unmatched())
        return examples, stats
    if len(taken) < len(records):
        raise InputError("records and examples are mixed; give one kind")
    fit = [example for example in taken if len(example.tokens) <= train.max_length]
    bare = sum(not example.causal_count.any() for example in fit)
    stats = AlignmentStats(
        records=len(fit), records_without_mask=bare, too_long=len(taken) - len(fit)
    )
    return fit, stats


def some_duplicates(
    training: Sequence[TrainingRecord] | Sequence[Example],
    others: Mapping[str, Sequence[TrainingRecord] | Sequence[Example]],
) -> list[Duplicates]:
    """Return which sets have records that also stand in the training data.

    Examples have lost their texts and are not looked at.
    """
    found = find_duplicates(_records(training), {n: _records(x) for n, x in others.items()})
    return [duplicates for duplicates in found.values() if duplicates.count]


def _records(items: Sequence[TrainingRecord] | Sequence[Example]) -> list[TrainingRecord]:
    if isinstance(items, ShardedExamples):
        return []
    return [item for item in items if not isinstance(item, Example)]


def write_unmatched(path: str | None, *found: AlignmentStats) -> None:
    """Write the unmatched spans as JSON lines with the fields of ``Unmatched``.

    Args:
        path: ``train.unmatched``; None writes nothing.
        found: What the alignment of the records found, by each method of a comparison.

    Raises:
        InputError: The file cannot be written.
    """
    if path is None or not is_primary():
        return
    spans = dict.fromkeys(span for stats in found for span in stats.unmatched)
    try:
        write_lines(path, (json.dumps(asdict(x), ensure_ascii=False) for x in spans))
    except (OSError, ValueError) as error:  # ValueError: no name, or one with NUL
        raise InputError(
            f"train.unmatched: cannot write {path!r} ({one_line(error)}); name a file that can be "
            "written"
        ) from error
