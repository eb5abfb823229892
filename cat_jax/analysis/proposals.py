"""Words that a model's answer depends on, as the model itself shows: proposals for an expert.

They say what *this model* uses. A model that was tuned on spurious correlations proposes them.

Sources: removal, J. Li et al., "Understanding Neural Networks through Representation Erasure"
(arXiv 1612.08220); gradient times input, A. Shrikumar et al. (arXiv 1605.01713); attention weights
as an explanation, and what speaks against it, S. Jain and B. C. Wallace (arXiv 1902.10186).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from cat_jax.annotation.equations import NUMBER
from cat_jax.data.alignment import Example, align_records
from cat_jax.data.batches import Batch
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.evaluation.likelihood import (
    answer_log_probabilities,
    batches,
    summed_log_probabilities,
)
from cat_jax.losses import guided_rows
from cat_jax.models import Aux, CausalLM, LanguageModel
from cat_jax.models.embedding import Embedding
from cat_jax.types import Array

By = Literal["replacement", "removal", "gradient", "attention"]
Draw = Callable[[str, np.random.Generator], str]
"""Returns other words in place of some."""

WORD = re.compile(r"\w+(?:['’.-]\w+)*")


@dataclass(frozen=True)
class Proposal:
    """Words of a prompt that an answer may depend on.

    Attributes:
        span: The words, at their character offset.
        effect: How much the answer depends on them; what it measures is said by ``propose_causes``.
        low: Lower end of the 95 % interval of the effect; NaN where nothing is drawn.
        high: Upper end.
    """

    span: Span
    effect: float
    low: float = float("nan")
    high: float = float("nan")


def number_spans(record: Record) -> list[Span]:
    """Return the numbers of a prompt."""
    return [Span(x[0], x.start()) for x in NUMBER.finditer(record.input)]


def word_spans(record: Record) -> list[Span]:
    """Return the words and numbers of a prompt."""
    return [Span(x[0], x.start()) for x in WORD.finditer(record.input)]


def other_number(number: str, rng: np.random.Generator) -> str:
    """Return another number, drawn evenly from 0 to twice it or, if that is less, to 10.

    It has as many digits behind the point.

    Raises:
        InputError: It is no number.
    """
    plain = number.replace(",", "")
    if NUMBER.fullmatch(number) is None:
        raise InputError(f"{number!r} is no number; give a function that draws in its place")
    digits = len(plain.partition(".")[2])
    largest = max(10, round(2 * float(plain))) * 10**digits
    given = round(float(plain) * 10**digits)
    drawn = int(rng.integers(0, largest))
    drawn += drawn >= given  # all but the number itself
    return f"{drawn / 10**digits:.{digits}f}"


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
      (Student's t). Negative where they make the target more probable.
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
        For each record the proposals, the largest effect first.

    Raises:
        InputError: Words to replace are no number, and ``draw`` is not given.
    """
    chosen = [list(spans(record)) for record in records]
    pairs = [(r, s) for r, found in zip(records, chosen, strict=True) for s in found]
    if by in ("replacement", "removal"):
        draws = samples if by == "replacement" else 1
        drop_PS = _drops(model, records, chosen, draw if by == "replacement" else None,
                         draws, seed, batch_size)  # fmt: skip
        effects = [_interval(span, drops) for (_, span), drops in zip(pairs, drop_PS, strict=True)]
    else:
        measure = _gradients if by == "gradient" else _attention
        values = measure(model, pairs, batch_size)
        effects = [Proposal(span, float(v)) for (_, span), v in zip(pairs, values, strict=True)]
    rest = iter(effects)
    return [sorted((next(rest) for _ in found), key=lambda x: -x.effect) for found in chosen]


def as_annotation(record: Record, proposals: Sequence[Proposal], *, top: int) -> Record:
    """Return the record with the first proposals as causes of the answer: a draft for review.

    Args:
        record: The record.
        proposals: Its proposals, the largest effect first.
        top: How many become causes.
    """
    causes = sorted((x.span for x in proposals[:top]), key=lambda span: span.start or 0)
    effect = Span(record.target, len(record.input))
    notes = (Annotation(effect, tuple(causes)),) if causes else ()
    return replace(record, important=notes)


def _interval(span: Span, drops: np.ndarray) -> Proposal:
    mean = float(drops.mean())
    if len(drops) < 2:
        return Proposal(span, mean)
    half = float(stats.sem(drops) * stats.t.ppf(0.975, len(drops) - 1))
    return Proposal(span, mean, mean - half, mean + half)


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
        _with(record, span, "" if draw is None else draw(span.text, rng))
        for record, spans in zip(records, chosen, strict=True)
        for span in spans
        for _ in range(samples)
    ]
    bare = [replace(record, important=()) for record in records]
    examples = _examples(model, [*bare, *changed])
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


def _examples(model: LanguageModel, records: Sequence[Record]) -> list[Example]:
    longest = model.model.config.max_positions
    examples, stats_ = align_records(records, model.tokenizer, max_length=longest)
    if stats_.too_long:
        raise InputError(
            f"{stats_.too_long} records are longer than the {longest} positions of the model; "
            "shorten them"
        )
    return examples


def _marked(model: LanguageModel, pairs: Sequence[tuple[Record, Span]]) -> list[Example]:
    """Return an example for each span in which it is the only cause of the answer."""
    return _examples(
        model,
        [
            replace(r, important=(Annotation(Span(r.target, len(r.input)), (span,)),))
            for r, span in pairs
        ],
    )


def _gradients(
    model: LanguageModel, pairs: Sequence[tuple[Record, Span]], batch_size: int
) -> Iterator[float]:
    examples = _marked(model, pairs)
    most = max(int(example.target_mask.sum()) for example in examples)
    done = 0
    for batch in batches(examples, batch_size):
        gradient_BT = np.asarray(_scale_gradient(model.model, model.params, batch, most))
        marked_BT = np.asarray(batch.k_bits_BTW).any(-1)
        sums = np.abs(np.where(marked_BT, gradient_BT, 0.0).sum(1))
        yield from sums[: len(examples) - done].tolist()
        done += len(sums)


@partial(jax.jit, static_argnums=(0, 3))
def _scale_gradient(model: CausalLM, params: Any, batch: Batch, most: int) -> Array:
    """Return gradient times input of each token, [B, T]: the slope by its embedding's scale."""

    def total(scale_BT: Array) -> Array:
        def scaled(next_: Any, arguments: Any, options: Any, context: Any) -> Any:
            x = next_(*arguments, **options)
            is_input = isinstance(context.module, Embedding) and context.method_name == "__call__"
            return x * scale_BT[..., None].astype(x.dtype) if is_input else x

        with nn.intercept_methods(scaled):
            output = model.apply({"params": params}, batch.tokens_BT, method="hidden_states")
        hidden_BTD, _ = cast("tuple[Array, Aux]", output)
        return summed_log_probabilities(model, params, hidden_BTD, batch, most).sum()

    return jax.grad(total)(jnp.ones(batch.tokens_BT.shape))


def _attention(
    model: LanguageModel, pairs: Sequence[tuple[Record, Span]], batch_size: int
) -> Iterator[float]:
    examples, done = _marked(model, pairs), 0
    for batch in batches(examples, batch_size):
        masses = np.asarray(_mean_mass(model.model, model.params, batch))
        yield from masses[: len(examples) - done].tolist()
        done += len(masses)


@partial(jax.jit, static_argnums=0)
def _mean_mass(model: CausalLM, params: Any, batch: Batch) -> Array:
    output = model.apply(
        {"params": params},
        batch.tokens_BT,
        q_bits=batch.q_bits_BTW,
        k_bits=batch.k_bits_BTW,
        method="hidden_states",
    )
    _, aux = cast("tuple[Array, Aux]", output)
    assert aux.mass is not None  # bits were given
    guided_BT = guided_rows(batch.causal_count_BT, batch.visible_count_BT)
    sums_B = jnp.where(guided_BT[None, :, None], aux.mass, 0.0).mean((0, 2)).sum(1)
    return sums_B / jnp.maximum(guided_BT.sum(1), 1)


def causes_ranked_first(records: Sequence[Record], ranked: Sequence[Sequence[Proposal]]) -> float:
    """Return how many of the first proposals are annotated causes of the answer (R-precision).

    Of a record with k proposals that overlap an annotated cause, the first k are looked at; 1 where
    all of them do. Records of which none or all of the proposals do are left out.

    Args:
        records: Records whose causes stand at offsets.
        ranked: Proposals for each, the largest effect first.

    Returns:
        The mean over the records; NaN if all are left out.
    """
    shares = []
    for record, proposals in zip(records, ranked, strict=True):
        causes = [x for note in record.important if _is_answer(note, record) for x in note.causes]
        hits = [any(_overlap(x.span, cause) for cause in causes) for x in proposals]
        if 0 < sum(hits) < len(hits):
            shares.append(np.mean(hits[: sum(hits)]))
    return float(np.mean(shares)) if shares else float("nan")


def _is_answer(note: Annotation, record: Record) -> bool:
    return (note.effect.start or 0) + len(note.effect.text) > len(record.input)


def _overlap(a: Span, b: Span) -> bool:
    first, second = sorted((span.start or 0, len(span.text)) for span in (a, b))
    return first[0] + first[1] > second[0]
