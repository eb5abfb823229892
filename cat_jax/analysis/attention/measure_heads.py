"""Head scores of a model. No map is built: each score is the mass on a pattern's edges."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.analysis.attention.head_scores import HeadScores
from cat_jax.analysis.attention.patterns import (
    Edges,
    Pattern,
    duplicate_token,
    first_token,
    induction,
    previous_token,
)
from cat_jax.analysis.attention.text import ReadText, Words, check_records, read_text
from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch
from cat_jax.data.bitset import encode_rectangles
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation.causal_mass import annotated_forward
from cat_jax.evaluation.likelihood import batches
from cat_jax.models import CausalLM, LanguageModel
from cat_jax.ranges import Count, check_number
from cat_jax.sharding import replicate
from cat_jax.types import Array

TEXT_PATTERNS: Mapping[str, Pattern] = {
    "sink": first_token,
    "previous token": previous_token,
    "duplicate token": duplicate_token,
}
"""What ``head_scores`` looks for in any text; induction needs repeated random tokens."""


def head_scores(
    model: LanguageModel,
    records: Sequence[Record],
    *,
    spurious: Callable[[Record], Sequence[Words]] | None = None,
    patterns: Mapping[str, Pattern] = TEXT_PATTERNS,
    batch_size: int = 64,
) -> HeadScores:
    """Score every head on records, by what it attends to.

    "causal" is the attention of the queries that predict the answer on its annotated causes,
    "spurious" the same on words that only correlate with it; the others are ``patterns``, averaged
    over all queries.

    Args:
        model: The model.
        records: Prompts and answers.
        spurious: Returns the spurious words of a record, such as ``task.spurious_spans``.
        patterns: Further scores: functions from token ids [T] to edges, bool [T, T]
            (``cat_jax.analysis.attention.patterns``).
        batch_size: Sequences that are computed at a time.

    Raises:
        InputError: There are no records, one is longer than the model reads, ``batch_size`` is
            below one, or a pattern's edges have another shape or its name is taken.
    """
    check_records(records, "score heads on")
    texts = [
        read_text(record, model.tokenizer, spurious(record) if spurious else ())
        for record in records
    ]
    asked = {"causal": [_from_answer(text, "cause") for text in texts]}
    if spurious:
        asked["spurious"] = [_from_answer(text, "spurious") for text in texts]
    ids = [np.array(text.encoding.ids, np.int32) for text in texts]
    for name, pattern in patterns.items():
        if name in ("causal", "spurious"):
            raise InputError(
                f"a pattern is named {name!r}, as a score of annotations is; rename it"
            )
        asked[name] = [_checked_edges(name, pattern(x), len(x)) for x in ids]
    return _measure(model, ids, asked, batch_size)


def attention_shares(
    records: Sequence[Record],
    spurious: Callable[[Record], Sequence[Words]] | None = None,
    *,
    batch_size: int = 64,
) -> Callable[[LanguageModel], dict[str, float]]:
    """Return an evaluator of ``fit`` that measures attention on causes and on spurious words.

    Args:
        records: Annotated prompts and answers.
        spurious: As in ``head_scores``.
        batch_size: Sequences that are computed at a time.

    Returns:
        A function of a model: means over records, layers and heads of the attention of the queries
        that predict the answer, "attention_on_causes" and "attention_on_spurious_words".
    """

    def measure(model: LanguageModel) -> dict[str, float]:
        found = head_scores(model, records, spurious=spurious, patterns={}, batch_size=batch_size)
        shares = {"attention_on_causes": float(found["causal"].mean())}
        if spurious:
            shares["attention_on_spurious_words"] = float(found["spurious"].mean())
        return shares

    return measure


def induction_scores(
    model: LanguageModel,
    *,
    length: int = 25,
    sequences: int = 16,
    seed: int = 0,
    batch_size: int = 64,
) -> HeadScores:
    """Score every head by its induction on repeated random tokens (Olsson et al. 2022).

    Args:
        model: The model.
        length: Different random tokens of a sequence, which stand in it twice.
        sequences: Random sequences.
        seed: Seed of the tokens.
        batch_size: Sequences that are computed at a time.

    Returns:
        The score "induction"; a random sequence counts as a record.

    Raises:
        InputError: A size below one, or more than the vocabulary or the positions allow.
    """
    check_number("length", length, Count)
    check_number("sequences", sequences, Count)
    special = {*model.tokenizer.all_special_ids}
    plain = [n for n in range(len(model.tokenizer)) if n not in special]
    if length > len(plain):
        raise InputError(f"length must be at most the {len(plain)} plain tokens, got {length}")
    rng = np.random.default_rng(seed)
    bos = model.tokenizer.bos_token_id
    start = [bos] if isinstance(bos, int) else []
    drawn = [rng.choice(plain, length, replace=False) for _ in range(sequences)]
    ids = [np.array([*start, *x, *x], np.int32) for x in drawn]
    return _measure(model, ids, {"induction": [induction(x) for x in ids]}, batch_size)


def _checked_edges(name: str, edges: Edges, tokens: int) -> Edges:
    if np.shape(edges) != (tokens, tokens):
        raise InputError(
            f"pattern {name!r} has edges of shape {list(np.shape(edges))} for {tokens} tokens; "
            f"[{tokens}, {tokens}] is needed"
        )
    return np.asarray(edges, bool)


def _from_answer(text: ReadText, kind: str) -> Edges:
    """Return the edges from the queries that predict the answer to the tokens of a kind."""
    kinds = np.array(text.kinds)
    return np.append(kinds == "effect", False)[1:, None] & (kinds == kind)[None]


def _measure(
    model: LanguageModel,
    ids: Sequence[np.ndarray],
    asked: Mapping[str, Sequence[Edges]],
    batch_size: int,
) -> HeadScores:
    check_number("batch_size", batch_size, Count)
    longest = max(map(len, ids))
    if longest > model.model.config.max_positions:
        raise InputError(
            f"a sequence has {longest} tokens, and the model reads "
            f"{model.model.config.max_positions}; shorten it"
        )
    found = {}
    for name, edges in asked.items():
        examples = [_marked(x, y) for x, y in zip(ids, edges, strict=True)]
        parts = [
            np.asarray(_mean_mass(model.model, model.params, batch))
            for batch in batches(examples, min(batch_size, len(ids)))
        ]
        found[name] = np.concatenate(parts)[: len(ids)]
    return HeadScores(found)


def _marked(tokens: np.ndarray, edges: Edges) -> Example:
    """Return an example with the edges as its annotation."""
    rows = np.flatnonzero(edges.any(-1)).tolist()
    rectangles = [([row], np.flatnonzero(edges[row]).tolist()) for row in rows]
    ((q_bits, k_bits, count),) = encode_rectangles([rectangles], [len(tokens)])
    nothing = np.zeros(len(tokens), bool)
    visible = np.arange(1, len(tokens) + 1, dtype=np.int32)
    return Example(tokens, nothing, q_bits, k_bits, count, visible)


@partial(jax.jit, static_argnums=0)
def _mean_mass(model: CausalLM, params: Any, batch: Batch) -> Array:
    """Return the mass of each sequence over its marked queries, [B, N, H]; NaN without any."""
    _, mass_NBHT = annotated_forward(model, params, batch)
    marked_BT = batch.causal_count_BT > 0
    sums_BNH = jnp.where(marked_BT[None, :, None], mass_NBHT, 0.0).sum(-1).swapaxes(0, 1)
    return replicate(sums_BNH / marked_BT.sum(1)[:, None, None], model.partition)
