"""What training sees of records."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example, Match, align_records, encode_records, end_id_of
from cat_jax.data.alignment_stats import AlignmentStats, Unmatched
from cat_jax.data.altered import AlteredConversation
from cat_jax.data.bitset import decode
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.sources import Source, read_records
from cat_jax.files import write_text
from cat_jax.train.setup import Start, make_tokenizer, resolve_start

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Dependence:
    """Tokens whose prediction is guided to the same tokens.

    Attributes:
        effects: Indices of the tokens that are predicted.
        causes: Indices of the tokens that their queries should attend to.
    """

    effects: list[int]
    causes: list[int]


@dataclass(frozen=True)
class ShownRecord:
    """A record as training sees it.

    Attributes:
        where: Its place.
        tokens: Text of each of the T tokens; special tokens show their names.
        trained: [T] whether the token is predicted in training.
        dependences: Which tokens depend on which, in the order of the effects.
        unmatched: Annotated words that are not in the text.
        left_out: Why training leaves the record out, as a clause; None if it does not.
    """

    where: str
    tokens: list[str]
    trained: np.ndarray
    dependences: list[Dependence]
    unmatched: tuple[Unmatched, ...]
    left_out: str | None = None


@dataclass(frozen=True)
class ShownRecords:
    """The first records of a data set as training sees them, and what is known of all.

    ``print`` shows text, a notebook the page, rich's console colours.

    Attributes:
        records: The first records.
        stats: What the alignment found in all records.
        lengths: Tokens of each record that is not left out.
        max_length: Longest sequence in tokens.
    """

    records: list[ShownRecord]
    stats: AlignmentStats
    lengths: np.ndarray
    max_length: int

    def __rich__(self) -> "RenderableType":
        from cat_jax.analysis.records.terminal import renderable

        return renderable(self)

    def __str__(self) -> str:
        from cat_jax.analysis.records.terminal import plain_text

        return plain_text(self)

    def _repr_html_(self) -> str:
        from cat_jax.analysis.records.page import html_fragment

        return html_fragment(self)

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page that loads nothing from elsewhere; it appears whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        from cat_jax.analysis.records.page import html_page

        write_text(path, html_page(self))

    def facts(self) -> list[tuple[str, str]]:
        """Return what is known of all records, as names and values."""
        stats, lengths = self.stats, self.lengths
        facts = [("records", f"{stats.records:,}")]
        if lengths.size:
            low, middle, high = (round(x) for x in np.quantile(lengths, (0, 0.5, 1)))
            facts.append(("tokens", f"{low} to {high}, median {middle}"))
        facts += [
            (f"left out, over {self.max_length} tokens", f"{stats.too_long:,}"),
            ("annotated words found", f"{stats.spans_found:,} of {stats.spans_asked:,}"),
            ("records without annotation", f"{stats.records_without_mask:,}"),
        ]
        if stats.altered:
            facts.append(("left out, altered by the chat template", f"{stats.altered:,}"))
        return facts


def show_records(
    source: Source,
    model: Start | str | os.PathLike[str] | PreTrainedTokenizerBase,
    *,
    count: int = 5,
    max_length: int = 256,
    match: Match = "offsets",
    columns: Mapping[str, str] | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> ShownRecords:
    """Align records as training does, and show the first of them. No model is loaded.

    Args:
        source: What ``read_records`` reads.
        model: What ``fit`` trains, or its tokenizer.
        count: Records to show; the statistics are of all.
        max_length: Longest sequence in tokens (``train.max_length``).
        match: How annotated words are found (``train.match``).
        columns: As in ``read_records``.
        template_options: As in ``read_records``.

    Raises:
        InputError: Records or tokenizer cannot be read or aligned.
    """
    records = read_records(source, columns=columns, template_options=template_options)
    tokenizer = model
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        tokenizer = make_tokenizer(resolve_start(tokenizer), records)
    examples, stats = align_records(records, tokenizer, max_length=max_length, match=match)
    lengths = np.array([len(example.tokens) for example in examples], int)
    shown = [
        _shown(number, record, tokenizer, max_length, match)
        for number, record in enumerate(islice(records, count), 1)
    ]
    return ShownRecords(shown, stats, lengths, max_length)


def _shown(
    number: int,
    record: TrainingRecord,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    match: Match,
) -> ShownRecord:
    where = record.where or f"record {number}"
    altered: list[AlteredConversation] = []
    encoded = list(encode_records([record], tokenizer, end_id_of(tokenizer, match), altered))
    if altered:
        reason = f"the chat template alters it: {altered[0]}"
        return ShownRecord(where, [], np.zeros(0, bool), [], (), reason)
    ((_, _, text, encoding),) = encoded
    (example,), stats = align_records(
        [record], tokenizer, max_length=len(encoding.ids), match=match
    )
    too_long = f"it has {len(encoding.ids)} tokens, over {max_length}"
    return ShownRecord(
        where,
        [
            text.text[start:end] or str(tokenizer.convert_ids_to_tokens(token))
            for token, start, end in zip(encoding.ids, encoding.starts, encoding.ends, strict=True)
        ],
        example.target_mask,
        dependences(example),
        stats.unmatched,
        too_long if len(encoding.ids) > max_length else None,
    )


def dependences(example: Example) -> list[Dependence]:
    """Return the annotation of an example by its tokens; queries with equal causes are one."""
    mask_TT = decode(example.q_bits, example.k_bits)
    effects: dict[bytes, list[int]] = {}
    for query in np.flatnonzero(mask_TT.any(axis=1)):
        effects.setdefault(mask_TT[query].tobytes(), []).append(int(query) + 1)
    return [
        Dependence(tokens, np.flatnonzero(mask_TT[tokens[0] - 1]).tolist())
        for tokens in effects.values()
    ]


def words(record: ShownRecord, tokens: Sequence[int]) -> list[str]:
    """Return the texts of tokens, neighbours joined."""
    groups: list[list[int]] = []
    for token in tokens:
        if groups and groups[-1][-1] == token - 1:
            groups[-1].append(token)
        else:
            groups.append([token])
    return ["".join(record.tokens[token] for token in group).strip() for group in groups]
