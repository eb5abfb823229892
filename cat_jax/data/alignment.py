"""Alignment of records to tokens: which tokens are the answer, and what they may attend to.

Source: CAT (Han et al., EMNLP 2025). The queries that *predict* an effect's tokens attend to the
tokens of its causes: an effect at tokens p..p+n-1 marks the mask's rows p-1..p+n-2.
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
from cat_jax.data.rendering import RenderedText, render_record
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Match = Literal["offsets", "reference"]
CHUNK = 1024  # records tokenised at once: as fast as all of them, in bounded memory


@dataclass(frozen=True)
class Example:
    """One token sequence with its annotation mask as a bitset; packed, it holds several records.

    Attributes:
        tokens: [T] int32, the end token last; a conversation ends as its template ends.
        target_mask: [T] bool, True at the tokens to predict: the answer and the end token. The
            tokens before the first of them are the prompt.
        q_bits: [T, W] uint32, annotation bits of queries; see ``cat_jax.data.bitset``.
        k_bits: [T, W] uint32, annotation bits of keys.
        causal_count: [T] int32, annotated keys that each query sees.
        visible_count: [T] int32, keys that each query sees.
        segment_ids: [T] int32, record of each token, counted from 1; None for a single record.
        positions: [T] int32, position of each token in its record; None for a single record.
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
    """Counts of aligned records and spans; ``a + b`` are the counts of both data sets.

    Attributes:
        spans_asked: Effects and causes of the aligned records.
        spans_found: Spans among these that occur in the text.
        records: Aligned records.
        records_without_mask: Records among these whose mask is empty, annotated or not.
        too_long: Records left out because they have too many tokens.
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
            f"spans found {self.spans_found}/{self.spans_asked}, records without annotation "
            f"{self.records_without_mask}/{self.records}, records too long {self.too_long}"
        )


@dataclass(frozen=True)
class Encoding:
    """A tokenised text.

    Attributes:
        ids: Token ids.
        starts: Offset of the first character of each token.
        ends: Offset after the last character of each token.
    """

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
    """Tokenise records and find their annotated words among the tokens.

    Input and target are tokenised together, as one text, and end with an end token.
    Conversations are rendered by the tokenizer's chat template
    (``cat_jax.data.chat_template``), to which nothing is added. A token is part of the answer if
    it ends after the input; so a space at the end of the input belongs to the answer where the
    tokenizer merges it with the answer's first word (" High").

    ``offsets`` ends sequences with the tokenizer's end token and finds words by character
    offsets, those of a span without ``start`` by ``cat_jax.data.rendering.find_span``. An effect
    that ends the text is the answer, and its other occurrences are ignored; otherwise all
    occurrences of an effect and of its causes count. Causes after their effect are never seen.

    ``reference`` reproduces the published aligner: it ends sequences with the padding token (the
    end token where there is none) and searches for exact runs of tokens, which misses spans.

    The published training skips rows whose mask is all ones over the whole row. They have
    ``causal_count == visible_count``, and the guidance loss skips them as well.

    Args:
        records: Records and conversations.
        tokenizer: Fast tokenizer (one with character offsets).
        max_length: Most tokens of a sequence, end token included. Longer records are left out and
            counted: truncation would cut off the answer.
        match: "offsets" or "reference".

    Returns:
        The examples in the order of the records, and what was found.

    Raises:
        InputError: A tokenizer without offsets or end token, an unknown ``match``, or under
            ``reference`` a conversation or a span with a ``start``.
    """
    if match not in ("offsets", "reference"):
        raise InputError(f'match must be "offsets" or "reference", not {match!r}')
    end_id = _end_id(tokenizer, match)
    examples: list[Example] = []
    asked = found = without_mask = 0
    for record, text, encoding in _encode_records(records, tokenizer, end_id):
        if len(encoding.ids) > max_length:
            continue
        if match == "offsets":
            rectangles, hits = _offset_rectangles(text, encoding)
        elif isinstance(record, Record):
            rectangles, hits = reference_rectangles(record, encoding.ids, tokenizer)
        else:
            raise InputError(
                f'{record.where}: match "reference" is not defined for conversations; use "offsets"'
            )
        example = _example(text, encoding, rectangles)
        examples.append(example)
        asked += sum(1 + len(annotation.causes) for annotation in record.important)
        found += hits
        without_mask += not example.causal_count.any()
    too_long = len(records) - len(examples)
    return examples, AlignmentStats(asked, found, len(examples), without_mask, too_long)


def check_offsets(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise InputError if the tokenizer has no character offsets."""
    if not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} gives no character offsets; use a fast tokenizer "
            "(a folder with tokenizer.json)"
        )


def _end_id(tokenizer: "PreTrainedTokenizerBase", match: Match) -> int:
    check_offsets(tokenizer)
    end = tokenizer.eos_token_id
    if match == "reference" and tokenizer.pad_token_id is not None:
        end = tokenizer.pad_token_id
    if not isinstance(end, int):
        raise InputError("the tokenizer has no end token; set its eos_token")
    return end


def _encode_records(
    records: Sequence[TrainingRecord], tokenizer: "PreTrainedTokenizerBase", end_id: int
) -> Iterator[tuple[TrainingRecord, RenderedText, Encoding]]:
    """Render and tokenise records, a chunk at a time."""
    for first in range(0, len(records), CHUNK):
        chunk = records[first : first + CHUNK]
        rendered = [render_record(record, tokenizer) for record in chunk]
        encodings: dict[int, Encoding] = {}
        for special in (False, True):  # one call of the tokenizer for each kind of text
            numbers = [n for n, text in enumerate(rendered) if text.has_special_tokens == special]
            texts = [rendered[n].text for n in numbers]
            encodings |= zip(numbers, _encode(texts, tokenizer, special, end_id), strict=True)
        yield from ((record, rendered[n], encodings[n]) for n, record in enumerate(chunk))


def _encode(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", has_special_tokens: bool, end_id: int
) -> Iterator[Encoding]:
    """Tokenise texts; special tokens and one end token are added unless the texts have them."""
    if not texts:
        return
    encoded = tokenizer(
        texts,
        add_special_tokens=not has_special_tokens,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    for text, ids, offsets in zip(
        texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        if not has_special_tokens:
            if ids[-1:] == [end_id]:  # added by the tokenizer itself
                ids, offsets = ids[:-1], offsets[:-1]
            ids, offsets = [*ids, end_id], [*offsets, (len(text), len(text))]
        starts, ends = zip(*offsets, strict=True)
        yield Encoding(ids, list(starts), list(ends))


def _example(text: RenderedText, encoding: Encoding, rectangles: list[Rectangle]) -> Example:
    length = len(encoding.ids)
    q_bits, k_bits = encode_rectangles(rectangles, length)
    starts, ends = np.asarray(encoding.starts), np.asarray(encoding.ends)
    target_mask = np.zeros(length, bool)
    for target in text.targets:
        target_mask |= (ends > target.start) & (starts < target.stop)
    if not text.has_special_tokens:
        target_mask[-1] = True
    counts = mask_counts(q_bits, k_bits)
    return Example(np.asarray(encoding.ids, np.int32), target_mask, q_bits, k_bits, *counts)


def _offset_rectangles(text: RenderedText, encoding: Encoding) -> tuple[list[Rectangle], int]:
    """Return each annotation's rows and columns of the mask, and the number of spans found."""
    rectangles, found = [], 0
    for annotation in text.annotations:
        effect = _token_indices(encoding, annotation.effect)
        causes = [_token_indices(encoding, cause) for cause in annotation.causes]
        found += bool(effect) + sum(map(bool, causes))
        rows = [p - 1 for p in effect if p > 0]  # nothing predicts the first token
        rectangles.append((rows, list(chain(*causes))))
    return rectangles, found


def _token_indices(encoding: Encoding, occurrences: Sequence[range]) -> list[int]:
    """Return the indices of the tokens that overlap one of the occurrences.

    Occurrences are stripped of whitespace, so a space that is merged into the next token adds none.
    """
    tokens = (
        range(bisect_right(encoding.ends, place.start), bisect_left(encoding.starts, place.stop))
        for place in occurrences
    )
    return list(chain(*tokens))
