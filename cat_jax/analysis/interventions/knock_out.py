"""Attention edges knocked out, and what that does to the answer.

Source: attention knockout, Geva, Bastings, Filippova and Globerson 2023 (arXiv 2304.14767).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.analysis.interventions.marks import (
    Keys,
    Queries,
    TracedRecords,
    edges,
)
from cat_jax.analysis.interventions.scores import AnswerScores, Pick, join, score_traced
from cat_jax.data.batches import Batch, most_targets
from cat_jax.errors import InputError
from cat_jax.evaluation.likelihood import AnswerScore, batches, score_answers
from cat_jax.models import CausalLM, LanguageModel, attention_edits
from cat_jax.sharding import replicate
from cat_jax.types import Array

Detail = Literal["whole", "layers", "heads"]
"""The whole model alone, layers one by one as well, or heads one by one as well."""


@dataclass(frozen=True)
class KnockOut:
    """Scores of R records without some edges of the attention.

    Attributes:
        keys: Kind of the tokens that are not read.
        queries: Kind of the tokens that do not read them.
        edges: How many edges each record has, [R]; of one without any nothing is knocked out.
        before: Scores of the whole model, [R].
        together: Without the edges in all layers and heads, [R].
        by_layer: In all heads of one layer, [N, R]; [0, R] if not asked for.
        by_head: In one head, [N, H, R]; [0, H, R] if not asked for.
    """

    keys: Keys
    queries: Queries
    edges: np.ndarray
    before: AnswerScores
    together: AnswerScores
    by_layer: AnswerScores
    by_head: AnswerScores

    def effect(self, after: AnswerScores) -> np.ndarray:
        """Return by how much the answer's preference rises or falls, in nats, [..., R].

        It is the change of ``AnswerScores.preference``.
        """
        return after.preference - self.before.preference

    def lost(self, after: AnswerScores) -> np.ndarray:
        """Return the share of all greedy answers that stop being right, [...]."""
        return (self.before.is_right & ~after.is_right).mean(-1)

    def gained(self, after: AnswerScores) -> np.ndarray:
        """Return the share of all greedy answers that become right, [...]."""
        return (~self.before.is_right & after.is_right).mean(-1)


def knock_out(
    model: LanguageModel,
    traced: TracedRecords,
    *,
    keys: Keys = "spurious",
    queries: Queries = "answer",
    gate: float = -np.inf,
    detail: Detail = "heads",
    batch_size: int = 64,
) -> KnockOut:
    """Knock out the attention from queries of a kind to keys of a kind, by layer and head.

    All layers and heads run in one compiled program: 2 + N + N H passes over the records.

    Args:
        model: The model.
        traced: Records, from ``trace_records``.
        keys: Kind of the tokens that are not to be read.
        queries: Kind of the tokens that are not to read them; "all" is every token outside the run
            of adjacent tokens of that kind, so that what they say stays where it stands.
        gate: What is added to the scores of these edges; log(a) weighs them by a instead.
        detail: "layers" leaves out single heads (2 + N passes), "whole" single layers too (2).
        batch_size: Sequences that are computed at a time.

    Raises:
        InputError: No such kinds or detail.
    """
    check_detail(detail)
    layers, heads = model.model.config.num_layers, model.model.config.num_heads
    gates_ENH = gate_grid(layers, heads, gate, detail)
    single = layers if detail != "whole" else 0
    scores = _score_gated(model, traced, keys, queries, gates_ENH, batch_size)
    counts = np.array([edges(x, keys, queries).causal_count.sum() for x in traced.right])
    return KnockOut(
        keys,
        queries,
        counts,
        before=scores[0],
        together=scores[1],
        by_layer=scores[2 : 2 + single],
        by_head=scores[2 + single :].reshape(layers if detail == "heads" else 0, heads),
    )


def knock_out_heads(
    model: LanguageModel,
    traced: TracedRecords,
    chosen: Mapping[str, Collection[tuple[int, int]]],
    *,
    keys: Keys = "causal",
    queries: Queries = "answer",
    gate: float = -np.inf,
    batch_size: int = 64,
) -> dict[str, AnswerScores]:
    """Knock out the attention of chosen heads together, such as the best ranked against others.

    Args:
        model: The model.
        traced: Records, from ``trace_records``.
        chosen: By name, layer and head of each head whose edges are knocked out; of none for the
            whole model.
        keys: As in ``knock_out``.
        queries: As in ``knock_out``.
        gate: As in ``knock_out``.
        batch_size: Sequences that are computed at a time.

    Returns:
        The scores by name, [R].

    Raises:
        InputError: Nothing is chosen, there is no such head, or no such kinds.
    """
    if not chosen:
        raise InputError("no heads are chosen; name at least one set: {'top': [(0, 1)]}")
    shape = model.model.config.num_layers, model.model.config.num_heads
    gates_ENH = np.zeros((len(chosen), *shape), np.float32)
    for gates_NH, (name, places) in zip(gates_ENH, chosen.items(), strict=True):
        for layer, head in places:
            if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
                raise InputError(
                    f"{name!r} names layer {layer}, head {head}; there are layers 0 to "
                    f"{shape[0] - 1} and heads 0 to {shape[1] - 1}"
                )
            gates_NH[layer, head] = gate
    scores = _score_gated(model, traced, keys, queries, gates_ENH, batch_size)
    return {name: scores[n] for n, name in enumerate(chosen)}


def _score_gated(
    model: LanguageModel,
    traced: TracedRecords,
    keys: Keys,
    queries: Queries,
    gates_ENH: np.ndarray,
    batch_size: int,
) -> AnswerScores:
    """Score the records under each gate of the edges, [E, R]."""

    def measure(pick: Pick) -> AnswerScore:
        examples = [edges(x, keys, queries) for x in pick(traced)]
        most = most_targets(examples)
        parts = (
            _gated(model.model, model.params, batch, gates_ENH, most)
            for batch in batches(examples, batch_size)
        )
        return join(parts, len(examples))

    return score_traced(traced, measure)


def check_detail(detail: str) -> None:
    """Raise InputError for a detail that there is not."""
    if detail not in get_args(Detail):
        raise InputError(f"detail must be one of {', '.join(get_args(Detail))}, not {detail!r}")


def gate_grid(layers: int, heads: int, gate: float, detail: Detail) -> np.ndarray:
    """Return gates of no head, of all, of each layer and of each head, [2 + N + N H, N, H]."""
    chosen = [np.stack([np.zeros((layers, heads), bool), np.ones((layers, heads), bool)])]
    if detail != "whole":
        one = np.eye(layers, dtype=bool)[:, :, None]
        chosen.append(np.broadcast_to(one, (layers, layers, heads)))
    if detail == "heads":
        chosen.append(np.eye(layers * heads, dtype=bool).reshape(-1, layers, heads))
    return np.where(np.concatenate(chosen), gate, 0.0).astype(np.float32)


@partial(jax.jit, static_argnums=(0, 4))
def _gated(model: CausalLM, params: Any, batch: Batch, gates_ENH: Array, most: int) -> AnswerScore:
    """Score answers under each gate of the edges that the batch marks: [E, B]."""
    q_bits_BTW, k_bits_BTW = jnp.asarray(batch.q_bits_BTW), jnp.asarray(batch.k_bits_BTW)

    def one(gate_NH: Array) -> AnswerScore:
        edits = attention_edits(gate_NH, q_bits_BTW, k_bits_BTW)
        return score_answers(model, params, batch, most, edits)

    return jax.tree.map(lambda x: replicate(x, model.partition), jax.lax.map(one, gates_ENH))
