"""Alignment of records to tokens: which tokens are the answer, and what they may attend to.

Source: CAT (Han et al., EMNLP 2025). The queries that *predict* an effect's tokens attend to the
tokens of its causes: an effect at tokens p..p+n-1 marks the mask's rows p-1..p+n-2.
"""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from cat_jax.collector import collector_paused
from cat_jax.data.alignment_stats import AlignmentStats, Unmatched, unmatched_spans
from cat_jax.data.altered import AlteredConversation
from cat_jax.data.bitset import Rectangle, encode_rectangles
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.encoding import Encoding, check_offsets, encode_texts
from cat_jax.data.records import Record
from cat_jax.data.reference_alignment import reference_rectangles
from cat_jax.data.rendering import RenderedText, render_record
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

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

    def _repr_html_(self) -> str:
        from cat_jax.data.html_views import example_html

        return example_html(self)


@collector_paused()
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
    (``cat_jax.data.chat_template``), to which nothing is added; those that it alters are left out,
    counted, and reported as a warning. A token is part of the answer if
    it ends after the input; so a space at the end of the input belongs to the answer where the
    tokenizer merges it with the answer's first word (" High").

    ``offsets`` ends sequences with the tokenizer's end token and finds words by character
    offsets, those of a span without ``start`` by the rule of ``cat_jax.data.matching``. An effect
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
        The examples in the order of the records, and counts of what was found, with the words
        that were not.

    Raises:
        AlteredConversation: The chat template alters every record.
        InputError: A tokenizer without offsets or end token, an unknown ``match``, or under
            ``reference`` a conversation or a span with a ``start``.
    """
    if match not in ("offsets", "reference"):
        raise InputError(f'match must be "offsets" or "reference", not {match!r}')
    end_id = end_id_of(tokenizer, match)
    examples: list[Example] = []
    unmatched: list[Unmatched] = []
    altered: list[AlteredConversation] = []
    asked = 0
    encoded = encode_records(records, tokenizer, end_id, altered)
    while chunk := list(islice(encoded, CHUNK)):
        masks: list[list[Rectangle]] = []
        fit: list[tuple[RenderedText, Encoding]] = []
        for number, record, text, encoding in chunk:
            if len(encoding.ids) > max_length:
                continue
            if match == "offsets":
                rectangles, found = _offset_rectangles(text, encoding)
            elif isinstance(record, Record):
                rectangles, found = reference_rectangles(record, encoding.ids, tokenizer)
            else:
                raise InputError(
                    f'{record.where}: match "reference" is not defined for conversations; use '
                    '"offsets"'
                )
            masks.append(rectangles)
            fit.append((text, encoding))
            asked += len(found)
            if not all(found):
                unmatched += unmatched_spans(record, found, record.where or f"record {number}")
        examples += _examples(fit, masks)
    _report_altered(altered, len(records))
    return examples, AlignmentStats(
        spans_asked=asked,
        spans_found=asked - len(unmatched),
        records=len(examples),
        records_without_mask=sum(not example.causal_count.any() for example in examples),
        too_long=len(records) - len(examples) - len(altered),
        altered=len(altered),
        unmatched=tuple(unmatched),
    )


def end_id_of(tokenizer: "PreTrainedTokenizerBase", match: Match) -> int:
    """Return the token that ends sequences.

    Raises:
        InputError: The tokenizer has none, or no character offsets.
    """
    check_offsets(tokenizer)
    end = tokenizer.eos_token_id
    if match == "reference" and tokenizer.pad_token_id is not None:
        end = tokenizer.pad_token_id
    if not isinstance(end, int):
        raise InputError("the tokenizer has no end token; set its eos_token")
    return end


def encode_records(
    records: Sequence[TrainingRecord],
    tokenizer: "PreTrainedTokenizerBase",
    end_id: int,
    altered: list[AlteredConversation],
) -> Iterator[tuple[int, TrainingRecord, RenderedText, Encoding]]:
    """Render and tokenise records, a chunk at a time.

    Args:
        records: Records and conversations.
        tokenizer: Fast tokenizer.
        end_id: Token that ends sequences.
        altered: Takes the conversations that the chat template alters, which are left out.

    Yields:
        Number from 1, record, text and tokens.
    """
    for first in range(0, len(records), CHUNK):
        chunk, rendered = [], []
        for number, record in enumerate(records[first : first + CHUNK], first + 1):
            try:
                rendered.append(render_record(record, tokenizer))
                chunk.append((number, record))
            except AlteredConversation as error:
                altered.append(error)
        encodings: dict[int, Encoding] = {}
        for special in (False, True):  # one call of the tokenizer for each kind of text
            numbers = [n for n, text in enumerate(rendered) if text.has_special_tokens == special]
            texts = [rendered[n].text for n in numbers]
            encoded = encode_texts(texts, tokenizer, has_special_tokens=special)
            encodings |= zip(numbers, encoded, strict=True)
        for n, (number, record) in enumerate(chunk):
            yield number, record, rendered[n], _ended(encodings[n], rendered[n], end_id)


def _report_altered(altered: Sequence[AlteredConversation], count: int) -> None:
    """Warn of conversations that are left out; raise the first refusal if nothing is left."""
    if altered and len(altered) == count:
        raise altered[0]
    if altered:
        logger.warning(
            "%d of %d records are left out, because the chat template alters them; the first: %s",
            len(altered),
            count,
            altered[0],
        )


def _ended(encoding: Encoding, text: RenderedText, end_id: int) -> Encoding:
    """End with one end token, whether the tokenizer appends it, the text has it, or neither."""
    if text.has_special_tokens:
        return encoding
    end, size = len(text.text), len(encoding.ids)
    if size and encoding.ids[size - 1] == end_id and not encoding.ends[size - 1]:
        size -= 1  # appended
    if size and encoding.ids[size - 1] == end_id:
        size -= 1  # written
    return Encoding(
        [*encoding.ids[:size], end_id],
        [*encoding.starts[:size], end],
        [*encoding.ends[:size], end],
        encoding.dummies,
    )


def _examples(
    encoded: Sequence[tuple[RenderedText, Encoding]], masks: Sequence[Sequence[Rectangle]]
) -> list[Example]:
    """Return the examples of texts, whose arrays are slices of common ones: much faster."""
    encodings = [encoding for _, encoding in encoded]
    lengths = [len(encoding.ids) for encoding in encodings]
    stops = list(accumulate(lengths))
    tokens, starts, ends = (
        np.fromiter(chain.from_iterable(lists), np.int32, sum(lengths))
        for lists in (
            (x.ids for x in encodings),
            (x.starts for x in encodings),
            (x.ends for x in encodings),
        )
    )
    target_mask = np.zeros(len(tokens), bool)
    examples = []
    bits = encode_rectangles(masks, lengths)
    for (text, _), length, stop, (q_bits, k_bits, causal_count) in zip(
        encoded, lengths, stops, bits, strict=True
    ):
        own = slice(stop - length, stop)
        for target in text.targets:
            target_mask[own] |= (ends[own] > target.start) & (starts[own] < target.stop)
        if not text.has_special_tokens:
            target_mask[stop - 1] = True
        visible_count = np.arange(1, length + 1, dtype=np.int32)
        examples.append(
            Example(tokens[own], target_mask[own], q_bits, k_bits, causal_count, visible_count)
        )
    return examples


def _offset_rectangles(
    text: RenderedText, encoding: Encoding
) -> tuple[list[Rectangle], list[bool]]:
    """Return each annotation's rows and columns of the mask, and whether each span was found."""
    rectangles, found = [], []
    for annotation in text.annotations:
        effect = token_indices(encoding, annotation.effect)
        causes = [token_indices(encoding, cause) for cause in annotation.causes]
        found += map(bool, (effect, *causes))
        rows = [p - 1 for p in effect if p > 0]  # nothing predicts the first token
        rectangles.append((rows, list(chain(*causes))))
    return rectangles, found


def token_indices(encoding: Encoding, occurrences: Sequence[range]) -> list[int]:
    """Return the indices of the tokens that overlap one of the occurrences.

    Occurrences are stripped of whitespace, so a space that is merged into the next token adds none.
    A dummy prefix belongs to no word.
    """
    tokens: list[int] = []
    for place in occurrences:
        first = bisect_right(encoding.ends, place.start)
        tokens += range(first, bisect_left(encoding.starts, place.stop))
    if encoding.dummies:
        tokens = [token for token in tokens if token not in encoding.dummies]
    return tokens
