"""Records to token rows: which tokens are the answer, and what its words may attend to.

Source: CAT (Han et al., EMNLP 2025). The rows that *predict* an effect's tokens attend to the
tokens of its causes: an effect at tokens p..p+n-1 marks the rows p-1..p+n-2.
"""

import functools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from cat_jax.data.bitset import Rectangle, encode_rectangles, mask_counts
from cat_jax.data.records import Record, Span
from cat_jax.data.reference_match import reference_rectangles
from cat_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Match = Literal["offsets", "reference"]
CHUNK = 1024  # records tokenised at once: as fast as all of them, in bounded memory


@dataclass(frozen=True)
class Example:
    """One token row with its annotation mask as a bitset; a packed row holds several records.

    Attributes:
        tokens: [T] int32, the end token last.
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
class Coverage:
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

    def __add__(self, other: "Coverage") -> "Coverage":
        names = (field.name for field in fields(self))
        return Coverage(*(getattr(self, name) + getattr(other, name) for name in names))

    def __str__(self) -> str:
        return (
            f"spans found {self.spans_found}/{self.spans_asked}, rows without any mask "
            f"{self.records_without_mask}/{self.records}, rows left out as too long {self.too_long}"
        )


@dataclass(frozen=True)
class TokenRow:
    """Token ids, and from and to which character of the text each token stands."""

    ids: list[int]
    starts: list[int]
    ends: list[int]


def align_records(
    records: Sequence[Record],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    match: Match = "offsets",
) -> tuple[list[Example], Coverage]:
    """Tokenises input + target with an end token and finds the annotated words in the tokens.

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
    for record, row in _token_rows(records, tokenizer, end_id):
        if len(row.ids) > max_length:
            continue
        if match == "offsets":
            rectangles, hits = _offset_rectangles(record, row)
        else:
            rectangles, hits = reference_rectangles(record, row.ids, tokenizer)
        example = _example(record, row, rectangles)
        examples.append(example)
        asked += sum(1 + len(note.causes) for note in record.important)
        found += hits
        without_mask += not example.causal_count.any()
    too_long = len(records) - len(examples)
    return examples, Coverage(asked, found, len(examples), without_mask, too_long)


def find_span(text: str, span: Span) -> list[int]:
    """At which characters the words of a span stand; its own ``start`` where it has one.

    Without ``start``: whole words only, and whole numbers ("5" is not in "15", "5.2", "1,500",
    ".5" or "-5", but in "16-5" and "5%"), without the spaces around the span; in the case as
    written, else, if that is nowhere, in any case. Words of scripts without spaces between words
    need a ``start``.
    """
    if span.start is not None:
        return [span.start]
    words = span.text.strip()
    if not words:
        return []
    exact = _pattern(words, False).finditer(text) if words in text else ()
    return [m.start() for m in exact] or [m.start() for m in _pattern(words, True).finditer(text)]


@functools.lru_cache(maxsize=4096)
def _pattern(words: str, any_case: bool) -> re.Pattern[str]:
    left = right = ""
    if re.match(r"\w", words[0]):
        left = r"(?<!\w)"
    if words[0].isdigit():  # part of a number: .5  1,500  and -5, unless something stands before
        left = r"(?<![\w.])(?<!\d,)(?<!(?<![\w)])[-−])"
    if re.match(r"\w", words[-1]):
        right = r"(?!\w)"
    if words[-1].isdigit():
        right = r"(?!\w|[.,]\d)"
    # A lookahead takes no text, so places may overlap.
    return re.compile(f"{left}(?={re.escape(words)}{right})", re.IGNORECASE if any_case else 0)


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
    records: Sequence[Record], tokenizer: "PreTrainedTokenizerBase", end_id: int
) -> Iterator[tuple[Record, TokenRow]]:
    """Tokenises records, in chunks; every row ends with the end token, once."""
    for first in range(0, len(records), CHUNK):
        chunk = records[first : first + CHUNK]
        texts = [record.text for record in chunk]
        encoded = tokenizer(
            texts, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        rows = zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        for record, ids, offsets in rows:
            if ids[-1:] == [end_id]:  # the tokenizer's own
                ids, offsets = ids[:-1], offsets[:-1]
            length = len(record.text)
            starts, ends = zip(*offsets, (length, length), strict=True)
            yield record, TokenRow([*ids, end_id], list(starts), list(ends))


def _example(record: Record, row: TokenRow, rectangles: list[Rectangle]) -> Example:
    q_bits, k_bits = encode_rectangles(rectangles, len(row.ids))
    target_mask = np.asarray(row.ends) > len(record.input)
    target_mask[-1] = True
    counts = mask_counts(q_bits, k_bits)
    return Example(np.asarray(row.ids, np.int32), target_mask, q_bits, k_bits, *counts)


def _offset_rectangles(record: Record, row: TokenRow) -> tuple[list[Rectangle], int]:
    """Gives rows and columns of each effect, and how many spans were found."""
    text = record.text
    rectangles, found = [], 0
    for note in record.important:
        effect = _places(text, note.effect, row, only_answer=True)
        causes = [_places(text, cause, row) for cause in note.causes]
        found += bool(effect) + sum(map(bool, causes))
        rows = [p - 1 for p in chain(*effect) if p > 0]  # nothing predicts the first token
        rectangles.append((rows, list(chain(*chain(*causes)))))
    return rectangles, found


def _places(text: str, span: Span, row: TokenRow, only_answer: bool = False) -> list[range]:
    """Gives the tokens of each place where the span stands."""
    starts = find_span(text, span)
    words = span.text if span.start is not None else span.text.strip()
    if only_answer and starts and starts[-1] + len(words) >= len(text.rstrip()):
        starts = starts[-1:]
    lead = len(words) - len(words.lstrip())
    size = len(words.strip())
    if not size:
        return []
    places = (_tokens(row, start + lead, start + lead + size) for start in starts)
    return [place for place in places if place]


def _tokens(row: TokenRow, start: int, stop: int) -> range:
    """Gives the tokens that share a character with text[start:stop], which no space bounds.

    Spaces that a tokenizer merges into the next token need no care: the first and the last
    character are none.
    """
    return range(bisect_right(row.ends, start), bisect_left(row.starts, stop))
