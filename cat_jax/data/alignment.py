"""Records to token rows: which tokens are the answer, and what its words may attend to.

Source: CAT (Han et al., EMNLP 2025). The rows that *predict* an effect's tokens attend to the
tokens of its causes: an effect at tokens p..p+n-1 marks the rows p-1..p+n-2.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from cat_jax.data.bitset import Rectangle, encode_rectangles, mask_counts
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.data.reference_alignment import reference_rectangles
from cat_jax.data.rendering import RenderedText, passage
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Match = Literal["offsets", "reference"]
CHUNK = 1024  # records tokenised at once: as fast as all of them, in bounded memory


@dataclass(frozen=True)
class Example:
    """One token row with its annotation mask as a bitset; a packed row holds several records.

    Attributes:
        tokens: [T] int32, the end token last; a conversation ends as its template ends.
        target_mask: [T] bool, True at the answer's tokens and the end token: their predictions
            are trained. What stands before the first of them is the prompt.
        q_bits: [T, W] uint32, see ``cat_jax.data.bitset``.
        k_bits: [T, W] uint32.
        causal_count: [T] int32, annotated keys that each row sees.
        visible_count: [T] int32, all keys that each row sees.
        segment_ids: [T] int32, which record each token is of, from 1; None for a single record.
        positions: [T] int32, of the tokens in their record; None for a single record.
    """

    tokens: np.ndarray
    target_mask: np.ndarray
    q_bits: np.ndarray
    k_bits: np.ndarray
    causal_count: np.ndarray
    visible_count: np.ndarray
    segment_ids: np.ndarray | None = None
    positions: np.ndarray | None = None


@dataclass(frozen=True)
class AlignmentStats:
    """What became of the records and their spans; ``a + b`` covers both.

    Attributes:
        spans_asked: effects and causes of the aligned records.
        spans_found: of these, the ones that stand somewhere in the text.
        records: aligned records.
        records_without_mask: of these, the ones without any annotated pair of tokens.
        too_long: records left out, because they have too many tokens.
    """

    spans_asked: int = 0
    spans_found: int = 0
    records: int = 0
    records_without_mask: int = 0
    too_long: int = 0

    def __add__(self, other: "AlignmentStats") -> "AlignmentStats":
        names = (field.name for field in fields(self))
        return AlignmentStats(*(getattr(self, name) + getattr(other, name) for name in names))

    def __str__(self) -> str:
        return (
            f"spans found {self.spans_found}/{self.spans_asked}, rows without any mask "
            f"{self.records_without_mask}/{self.records}, rows left out as too long {self.too_long}"
        )


@dataclass(frozen=True)
class Encoding:
    """Token ids, and from and to which character of the text each token stands."""

    ids: list[int]
    starts: list[int]
    ends: list[int]


def align_records(
    records: Sequence[TrainingRecord],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    match: Match = "offsets",
) -> tuple[list[Example], AlignmentStats]:
    """Tokenises input + target with an end token and finds the annotated words in the tokens.

    Conversations are rendered by the tokenizer's chat template
    (``cat_jax.data.chat_template``), and nothing is added to them.

    The text is tokenised once, as a whole. A token is the answer's if it ends after the input;
    so a space at the end of the input belongs to the answer where the tokenizer merges it with
    the answer's first word (" High").

    ``offsets`` adds the tokenizer's end token (unless the tokenizer does) and follows character
    offsets; ``find_span`` says where a span without ``start`` stands. An effect which ends the
    text is the answer and nothing else; otherwise all places of an effect and of its causes
    count, and no row sees beyond itself.

    ``reference`` reproduces the published aligner: it adds the padding token (the end token where
    there is none) and searches for exact runs of tokens, with all that misses. ``start`` is
    ignored.

    The published training skips rows whose mask is all ones over the whole row. They have
    ``causal_count == visible_count``, which the loss skips anyway.

    Args:
        records: rows to align.
        tokenizer: a fast one.
        max_length: most tokens of a row, the end token included; longer records are left out
            and counted, because cutting them would cut the answer.
        match: "offsets" or "reference".

    Returns:
        The examples in the order of the records, and what was found.

    Raises:
        InputError: a tokenizer without offsets or end token, an unknown ``match``, or a span
            with a ``start`` under ``reference``.
    """
    if match not in ("offsets", "reference"):
        raise InputError(f'match must be "offsets" or "reference", not {match!r}')
    end_id = _end_id(tokenizer, match)
    examples: list[Example] = []
    asked = found = without_mask = 0
    for record, text, row in _token_rows(records, tokenizer, end_id):
        if len(row.ids) > max_length:
            continue
        if match == "offsets":
            rectangles, hits = _offset_rectangles(text, row)
        elif isinstance(record, Record):
            rectangles, hits = reference_rectangles(record, row.ids, tokenizer)
        else:
            raise InputError(f"{record.where}: reference matching knows no conversations")
        example = _example(text, row, rectangles)
        examples.append(example)
        asked += sum(1 + len(note.causes) for note in record.important)
        found += hits
        without_mask += not example.causal_count.any()
    too_long = len(records) - len(examples)
    return examples, AlignmentStats(asked, found, len(examples), without_mask, too_long)


def _end_id(tokenizer: "PreTrainedTokenizerBase", match: Match) -> int:
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} gives no character offsets; use a fast tokenizer "
            "(a folder with tokenizer.json)"
        )
    end = tokenizer.eos_token_id
    if match == "reference" and tokenizer.pad_token_id is not None:
        end = tokenizer.pad_token_id
    if not isinstance(end, int):
        raise InputError("the tokenizer has no end token; set its eos_token")
    return end


def _token_rows(
    records: Sequence[TrainingRecord], tokenizer: "PreTrainedTokenizerBase", end_id: int
) -> Iterator[tuple[TrainingRecord, RenderedText, Encoding]]:
    """Tokenises rows, in chunks; a record's ends with the end token, once."""
    for first in range(0, len(records), CHUNK):
        chunk = records[first : first + CHUNK]
        passages = [passage(record, tokenizer) for record in chunk]
        rows: dict[int, Encoding] = {}
        for complete in (False, True):
            numbers = [n for n, text in enumerate(passages) if text.complete == complete]
            texts = [passages[n].text for n in numbers]
            rows |= zip(numbers, _tokenize(texts, tokenizer, complete, end_id), strict=True)
        yield from ((record, passages[n], rows[n]) for n, record in enumerate(chunk))


def _tokenize(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", complete: bool, end_id: int
) -> Iterator[Encoding]:
    """Rows of tokens; special ones are added unless the texts are complete."""
    if not texts:
        return
    encoded = tokenizer(
        texts,
        add_special_tokens=not complete,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    rows = zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    for text, ids, offsets in rows:
        if not complete:
            if ids[-1:] == [end_id]:  # the tokenizer's own
                ids, offsets = ids[:-1], offsets[:-1]
            ids, offsets = [*ids, end_id], [*offsets, (len(text), len(text))]
        starts, ends = zip(*offsets, strict=True)
        yield Encoding(ids, list(starts), list(ends))


def _example(text: RenderedText, row: Encoding, rectangles: list[Rectangle]) -> Example:
    q_bits, k_bits = encode_rectangles(rectangles, len(row.ids))
    starts, ends = np.asarray(row.starts), np.asarray(row.ends)
    target_mask = np.zeros(len(row.ids), bool)
    for target in text.targets:
        target_mask |= (ends > target.start) & (starts < target.stop)
    if not text.complete:
        target_mask[-1] = True
    counts = mask_counts(q_bits, k_bits)
    return Example(np.asarray(row.ids, np.int32), target_mask, q_bits, k_bits, *counts)


def _offset_rectangles(text: RenderedText, row: Encoding) -> tuple[list[Rectangle], int]:
    """Gives rows and columns of each effect, and how many spans were found."""
    rectangles, found = [], 0
    for note in text.notes:
        effect = _tokens(row, note.effect)
        causes = [_tokens(row, cause) for cause in note.causes]
        found += bool(effect) + sum(map(bool, causes))
        rows = [p - 1 for p in effect if p > 0]  # nothing predicts the first token
        rectangles.append((rows, list(chain(*causes))))
    return rectangles, found


def _tokens(row: Encoding, places: Sequence[range]) -> list[int]:
    """Gives the tokens that share a character with one of the places, which no space bounds.

    Spaces that a tokenizer merges into the next token need no care: the first and the last
    character are none.
    """
    tokens = (
        range(bisect_right(row.ends, place.start), bisect_left(row.starts, place.stop))
        for place in places
    )
    return list(chain(*tokens))
