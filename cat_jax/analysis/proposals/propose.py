"""Words that a model's answer depends on, as the model itself shows: proposals for an expert.

They say what *this model* uses. A model that was tuned on spurious correlations proposes them.

Sources: removal, J. Li et al., "Understanding Neural Networks through Representation Erasure"
(arXiv 1612.08220); gradient times input, A. Shrikumar et al. (arXiv 1605.01713); attention weights
as an explanation, and what speaks against it, S. Jain and B. C. Wallace (arXiv 1902.10186).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from scipy import stats

from cat_jax.analysis.proposals.readings import aligned, attention, gradients
from cat_jax.analysis.proposals.spans import (
    Draw,
    Proposal,
    check_places,
    number_spans,
    other_number,
)
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.evaluation.likelihood import answer_log_probabilities
from cat_jax.models import LanguageModel
from cat_jax.ranges import Count, check_number

By = Literal["replacement", "removal", "gradient", "attention"]


def propose_causes(
    model: LanguageModel,
    records: Sequence[Record],
    *,
    by: By = "replacement",
    spans: Callable[[Record], Sequence[Span]] = number_spans,
    draw: Draw = other_number,
    samples: int = 8,
    seed: int = 0,
    batch_size: int = 64,
) -> list[list[Proposal]]:
    """Rank words of each prompt by how much the model's probability of the target depends on them.

    A proposal is for an expert to judge, never the truth: it says what this model uses.

    - ``replacement``: how far the log-probability of the target falls, in nats, when other words
      are drawn in their place, on average over the draws, with the interval of that mean
      (Student's t). Negative where they make the target more probable: a spurious factor that
      speaks against the answer is used as well, so the size of the effect ranks, not its sign.
    - ``removal``: the same when the words are left out.
    - ``gradient``: gradient of the log-probability times the input embedding, summed over the
      words' tokens; absolute value. A first-order reading, beside the two above.
    - ``attention``: share of the target's attention on the words, mean over layers, heads and
      queries. It may tell nothing of what the answer depends on; beside the two above.

    Args:
        model: Model and tokenizer, such as a ``RunResult`` or what ``load_language_model`` gives.
        records: Prompts and answers; their annotations are not looked at.
        by: What to rank by.
        spans: Returns the words of a record to rank, at their offsets.
        draw: Draws other words; of use with ``replacement`` alone.
        samples: Draws for each span.
        seed: Seed of the draws.
        batch_size: Sequences that are computed at a time.

    Returns:
        For each record the proposals, the largest effect first, of either sign.

    Raises:
        InputError: ``by`` is none of these, a span does not stand at its offset, words to replace
            are no number and ``draw`` is not given, or a prompt is too long for the model.
    """
    if by not in get_args(By):
        raise InputError(f"by must be one of {', '.join(get_args(By))}, not {by!r}")
    check_number("samples", samples, Count)
    chosen = [list(spans(record)) for record in records]
    for record, found in zip(records, chosen, strict=True):
        check_places(record, found)
    pairs = [(r, s) for r, found in zip(records, chosen, strict=True) for s in found]
    if not pairs:
        return [[] for _ in records]
    if by in ("replacement", "removal"):
        draws = samples if by == "replacement" else 1
        drop_PS = _drops(model, records, chosen, draw if by == "replacement" else None,
                         draws, seed, batch_size)  # fmt: skip
        effects = [
            _interval(span, by, drops) for (_, span), drops in zip(pairs, drop_PS, strict=True)
        ]
    else:
        measure = gradients if by == "gradient" else attention
        values = measure(model, pairs, batch_size)
        effects = [Proposal(span, float(v), by) for (_, span), v in zip(pairs, values, strict=True)]
    rest = iter(effects)
    return [sorted((next(rest) for _ in found), key=lambda x: -abs(x.effect)) for found in chosen]


def as_annotation(record: Record, proposals: Sequence[Proposal], *, top: int) -> Record:
    """Return the record with the first proposals as causes of the answer: a draft for review.

    It is what a model proposes to an expert, who accepts, mends or drops it.

    Args:
        record: The record.
        proposals: Its proposals, the largest effect first.
        top: How many become causes.
    """
    check_number("top", top, Count)
    causes = sorted((x.span for x in proposals[:top]), key=lambda span: span.start or 0)
    effect = Span(record.target, len(record.input))
    notes = (Annotation(effect, tuple(causes)),) if causes else ()
    return replace(record, important=notes)


def _interval(span: Span, by: str, drops: np.ndarray) -> Proposal:
    mean = float(drops.mean())
    if len(drops) < 2:
        return Proposal(span, mean, by, len(drops))
    half = float(stats.sem(drops) * stats.t.ppf(0.975, len(drops) - 1))
    return Proposal(span, mean, by, len(drops), mean - half, mean + half)


def _drops(
    model: LanguageModel,
    records: Sequence[Record],
    chosen: Sequence[Sequence[Span]],
    draw: Draw | None,
    samples: int,
    seed: int,
    batch_size: int,
) -> np.ndarray:
    """Return by how much the log-probability falls, for each span and draw, [P, S]."""
    rng = np.random.default_rng(seed)
    changed = [
        _with(record, span, "" if draw is None else draw(record, span, rng))
        for record, spans in zip(records, chosen, strict=True)
        for span in spans
        for _ in range(samples)
    ]
    bare = [replace(record, important=()) for record in records]
    examples = aligned(model, [*bare, *changed])
    log_R = answer_log_probabilities(model.model, model.params, examples, batch_size=batch_size)
    before_P = np.repeat(log_R[: len(bare)], [len(spans) for spans in chosen])
    return before_P[:, None] - log_R[len(bare) :].reshape(-1, samples)


def _with(record: Record, span: Span, words: str) -> Record:
    """Return a record with other words in place of a span; of none, one space goes too."""
    start = span.start or 0
    before, after = record.input[:start], record.input[start + len(span.text) :]
    if not words and before.endswith(" ") and after.startswith(" "):
        after = after[1:]
    return Record(before + words + after, record.target)
