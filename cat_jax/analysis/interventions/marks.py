"""Which tokens of a record are spurious, causal or other, and which predict the answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.data.alignment import Example, align_records
from cat_jax.data.bitset import WORD, encode_rectangles, mask_counts
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError, name_hint
from cat_jax.evaluation.answers import answer_range
from cat_jax.models import LanguageModel
from cat_jax.tasks.base import Task
from cat_jax.tasks.controls.places import answer_causes, spurious_places

Kind = Literal["spurious", "causal", "other", "answer"]
"""Kinds of tokens, each token of one: words that only correlate with the answer, words that it
depends on, the rest of the prompt, and the tokens that predict the answer's."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Keys = Literal["spurious", "causal", "other"]
Queries = Literal["answer", "causal", "other", "all"]


@dataclass(frozen=True)
class MarkedExample:
    """An example with the kind of each token.

    Attributes:
        example: Prompt and answer.
        kinds: [T], index into ``KINDS``; -1 for the last token, which predicts nothing.
    """

    example: Example
    kinds: np.ndarray


def marked_tokens(
    tokenizer: PreTrainedTokenizerBase, record: Record, spans: Sequence[Span]
) -> np.ndarray:
    """Return which tokens of an aligned record belong to spans of its prompt, bool [T]."""
    target = Span(record.target, len(record.input))
    notes = (Annotation(target, tuple(spans)),) if spans else ()
    asked = replace(record, important=notes)
    (example,), _ = align_records([asked], tokenizer, max_length=_LONGEST)
    return np.asarray(example.k_bits.any(-1))


_LONGEST = 2**31 - 1


@dataclass(frozen=True)
class TracedRecords:
    """Records made ready for interventions.

    Attributes:
        right: Each with its right answer, [R].
        rivals: Each with the answer that it is compared with; None where there is none.
    """

    right: list[MarkedExample]
    rivals: list[MarkedExample | None]

    def __len__(self) -> int:
        return len(self.right)


def trace_records(
    model: LanguageModel,
    task: Task | None,
    records: Sequence[TrainingRecord],
    alternatives: Sequence[str | None] | None = None,
) -> TracedRecords:
    """Align records and find the kind of each token.

    Causes are the annotated ones of the answer, spurious words those that the task names
    (``Task.spurious_spans``). A token of both is causal, and one that predicts the answer's first
    token is of kind "answer", whatever it says.

    Args:
        model: Whose tokenizer, and longest sequence.
        task: Says what is spurious; with None nothing is.
        records: Prompts and answers.
        alternatives: For each a wrong answer to compare the right one with, or None.

    Raises:
        InputError: There are none, one is a conversation or longer than the model reads, or its
            prompt is tokenised otherwise before the alternative.
    """
    if not records:
        raise InputError("there are no records to trace; give at least one")
    if alternatives is None:
        alternatives = [None] * len(records)
    right, rivals = [], []
    for number, (record, other) in enumerate(zip(records, alternatives, strict=True), 1):
        if not isinstance(record, Record):
            raise InputError(
                f"record {number} is a conversation; what happens inside a model is traced for "
                "prompts with answers: give records with 'input' and 'target'"
            )
        right.append(_marked(model, task, record, number))
        rivals.append(None if other is None else _rival(model, right[-1], record, other, number))
    return TracedRecords(right, rivals)


def other_answers(records: Sequence[TrainingRecord]) -> list[str | None]:
    """Return for each record the other answer where all records have one of two, else None."""
    targets = [record.target if isinstance(record, Record) else None for record in records]
    known = set(targets)
    if len(known) != 2 or None in known:
        return [None] * len(targets)
    return [next(iter(known - {target})) for target in targets]


def _aligned(model: LanguageModel, record: Record, number: int) -> Example:
    longest = model.model.config.max_positions
    (example,), _ = align_records([record], model.tokenizer, max_length=_LONGEST)
    if len(example.tokens) > longest:
        raise InputError(
            f"record {number} has {len(example.tokens)} tokens, and the model reads {longest}; "
            "shorten it"
        )
    if not answer_range(example).start:
        raise InputError(f"record {number} has no prompt to answer; give it an 'input'")
    return example


def _marked(model: LanguageModel, task: Task | None, record: Record, number: int) -> MarkedExample:
    example = _aligned(model, record, number)
    kinds = np.full(len(example.tokens), KINDS.index("other"))
    for kind, places in (
        ("spurious", spurious_places(task, record) if task else []),
        ("causal", answer_causes(record)),
    ):
        spans = [Span(record.text[x.start : x.stop], x.start) for x in places]
        kinds[marked_tokens(model.tokenizer, record, spans)] = KINDS.index(kind)
    return MarkedExample(example, _with_answer(kinds, answer_range(example).start))


def _rival(
    model: LanguageModel, marked: MarkedExample, record: Record, answer: str, number: int
) -> MarkedExample:
    """Return the same prompt with another answer."""
    example = _aligned(model, Record(record.input, answer), number)
    start = answer_range(example).start
    own = marked.example.tokens[: answer_range(marked.example).start]
    if not np.array_equal(example.tokens[:start], own):
        raise InputError(
            f"record {number}: the prompt is tokenised otherwise before {answer!r} than before "
            f"{record.target!r}; leave out the alternative"
        )
    kinds = np.resize(marked.kinds, len(example.tokens))
    return MarkedExample(example, _with_answer(kinds, start))


def _with_answer(kinds: np.ndarray, start: int) -> np.ndarray:
    """Return the kinds where the answer's first token is the one at ``start``."""
    kinds[start - 1 :] = KINDS.index("answer")
    kinds[-1] = -1
    return kinds


def edges(marked: MarkedExample, keys: Keys, queries: Queries) -> Example:
    """Return the example with the edges from tokens of one kind to those of another marked.

    Edges are those that leave a run of adjacent tokens of the kind ``keys`` for a query outside of
    it: with "causal" at both ends, those from one cause to another. ``queries`` "all" are all
    tokens outside the run, so that nothing of it is read anywhere else.

    Raises:
        InputError: No such kinds.
    """
    for name, given, known in (("keys", keys, get_args(Keys)), ("queries", queries, QUERIES)):
        if given not in known:
            raise InputError(f"{name} must be a kind of tokens: {name_hint(given, known)}")
    rows = marked.kinds >= 0 if queries == "all" else marked.kinds == KINDS.index(queries)
    rectangles = [
        ([int(i) for i in np.flatnonzero(rows) if i not in run], list(run))
        for run in _runs(marked.kinds == KINDS.index(keys))
    ]
    ((q_bits, k_bits, _),) = encode_rectangles([rectangles], [len(marked.kinds)])
    # As many words whatever the keys, so that all of a record's edges run in one program.
    most = max(len(_runs(marked.kinds == n)) for n in range(len(get_args(Keys))))
    words = -(-(most + 1) // WORD)  # a bit for each run's queries, and one for those of none
    q_bits, k_bits = (np.pad(x, [(0, 0), (0, words - x.shape[1])]) for x in (q_bits, k_bits))
    counts = mask_counts(q_bits, k_bits)
    return replace(marked.example, q_bits=q_bits, k_bits=k_bits,
                   causal_count=counts[0], visible_count=counts[1])  # fmt: skip


QUERIES: tuple[Queries, ...] = get_args(Queries)


def _runs(chosen_T: np.ndarray) -> list[range]:
    """Return the longest runs of adjacent positions that are chosen."""
    found = []
    for is_chosen, group in groupby(range(len(chosen_T)), key=chosen_T.tolist().__getitem__):
        run = list(group)
        if is_chosen:
            found.append(range(run[0], run[-1] + 1))
    return found
