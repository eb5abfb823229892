"""The definition: full attention maps in plain jnp, differentiated by autodiff."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt32

from pallas_kernels.causal_mass_attention.support import InputSpec, Machine

LOWEST = float(jnp.finfo(jnp.float32).min)


def unsupported_reason(_spec: InputSpec, _machine: Machine | None = None) -> None:
    """Return None: ``xla`` supports every input on every machine, and derivatives of any order."""


def visible_pairs(
    q_positions_Q: Int32[Array, "Q"],
    k_positions_K: Int32[Array, "K"],
    q_segments_BQ: Int32[Array, "B Q"] | None,
    k_segments_BK: Int32[Array, "B K"] | None,
) -> Bool[Array, "_ Q K"]:
    """Return which keys each query may read: none later than itself, none of another segment.

    bool [B, Q, K], or [1, Q, K] without segments.
    """
    visible_1QK = (k_positions_K[None, :] <= q_positions_Q[:, None])[None]
    if q_segments_BQ is None or k_segments_BK is None:
        return visible_1QK
    return visible_1QK & (q_segments_BQ[:, :, None] == k_segments_BK[:, None, :])


def annotated_pairs(
    q_bits_BQW: UInt32[Array, "B Q W"], k_bits_BKW: UInt32[Array, "B K W"]
) -> Bool[Array, "B Q K"]:
    """Return which pairs of positions share an annotation bit."""
    return ((q_bits_BQW[:, :, None] & k_bits_BKW[:, None]) != 0).any(-1)


@jax.custom_jvp
def masked_softmax(
    scores: Float32[Array, "*batch Q K"], visible: Bool[Array, "*#batch Q K"]
) -> Float32[Array, "*batch Q K"]:
    """Compute the softmax over visible keys; a row without any is zero, and so is its gradient."""
    largest = jnp.max(scores, axis=-1, keepdims=True, where=visible, initial=LOWEST)
    weights = jnp.where(visible, jnp.exp(scores - largest), 0.0)
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


@masked_softmax.defjvp
def _masked_softmax_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Any]):
    """From the probabilities alone: they are the one map that the backward pass keeps."""
    scores, visible = primals
    probs = masked_softmax(scores, visible)
    # Hidden keys stay out of the sum, because what they bring may not be finite.
    moved = jnp.where(visible, tangents[0], 0.0)
    return probs, probs * (moved - (probs * moved).sum(-1, keepdims=True))


def attention_probabilities(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    segment_ids_BK: Int32[Array, "B K"] | None = None,
    scale: float | None = None,
    bias_BHQK: Float32[Array, "B H Q K"] | None = None,
) -> Float32[Array, "B H Q K"]:
    """Compute the full causal attention maps, in float32.

    With Q < K the queries are the last Q of the K positions. ``scale`` defaults to C**-0.5.
    ``bias_BHQK`` is as in ``biased_attention``.
    """
    batch, queries, heads, size = query_BQHC.shape
    factor = float(size) ** -0.5 if scale is None else scale
    probs_BGMK = _grouped_probabilities(query_BQHC, key_BKGC, segment_ids_BK, factor, bias_BHQK)
    return probs_BGMK.reshape(batch, heads, queries, -1)


def _grouped_probabilities(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    segment_ids_BK: Int32[Array, "B K"] | None,
    scale: float,
    bias_BHQK: Float32[Array, "B H Q K"] | None = None,
) -> Float32[Array, "B G M K"]:
    """Compute the maps with the queries of a group's heads on one axis, M = H / G * Q.

    On the CPU products of matrices are the fast ones: with R and Q apart, XLA transposes maps in
    the backward pass. And products and softmax keep the same map for it, not one each.
    """
    batch, queries, heads, size = query_BQHC.shape
    keys, groups = key_BKGC.shape[1:3]
    query_BGMC = query_BQHC.swapaxes(1, 2).reshape(batch, groups, -1, size)
    scores_BGMK = jnp.einsum(
        "BGMC,BGKC->BGMK",
        query_BGMC,
        key_BKGC.swapaxes(1, 2),
        preferred_element_type=jnp.float32,
    )
    positions_K, per_group = jnp.arange(keys), heads // groups
    q_positions_M = jnp.tile(positions_K[keys - queries :], per_group)
    segments_BM = None
    if segment_ids_BK is not None:
        segments_BM = jnp.tile(segment_ids_BK[:, keys - queries :], (1, per_group))
    visible_BMK = visible_pairs(q_positions_M, positions_K, segments_BM, segment_ids_BK)
    if bias_BHQK is None:
        return masked_softmax(scores_BGMK * scale, visible_BMK[:, None])
    bias_BGMK = bias_BHQK.reshape(scores_BGMK.shape)
    is_open_BGMK = bias_BGMK > -jnp.inf
    # A key at -inf is hidden instead, so that scores and their gradients stay finite.
    scores_BGMK = scores_BGMK * scale + jnp.where(is_open_BGMK, bias_BGMK, 0.0)
    return masked_softmax(scores_BGMK, visible_BMK[:, None] & is_open_BGMK)


def attention_rows(
    query_BQHC: Float[Array, "B Q H C"],
    key_BQGC: Float[Array, "B Q G C"],
    rows_BR: Int[Array, "B R"],
    segment_ids_BQ: Int32[Array, "B Q"] | None = None,
    scale: float | None = None,
    bias_BHQQ: Float32[Array, "B H Q Q"] | None = None,
) -> Float32[Array, "B H R Q"]:
    """Compute the chosen rows of ``attention_probabilities``, in O(R Q) memory.

    Args:
        query_BQHC: Queries.
        key_BQGC: Keys.
        rows_BR: Position of the query of each row, 0 to Q - 1; of each sequence its own.
        segment_ids_BQ: Queries attend only within equal ids.
        scale: Factor of the scores; None is C**-0.5.
        bias_BHQQ: As in ``biased_attention``.
    """
    batch, _, heads, size = query_BQHC.shape
    positions, groups = key_BQGC.shape[1:3]
    factor = float(size) ** -0.5 if scale is None else scale
    query_BRHC = jnp.take_along_axis(query_BQHC, rows_BR[:, :, None, None], axis=1)
    scores_BGPRQ = jnp.einsum(
        "BRGPC,BQGC->BGPRQ",
        query_BRHC.reshape(batch, -1, groups, heads // groups, size),
        key_BQGC,
        preferred_element_type=jnp.float32,
    )
    scores_BHRQ = factor * scores_BGPRQ.reshape(batch, heads, -1, positions)
    visible_BRQ = jnp.arange(positions)[None, None] <= rows_BR[:, :, None]
    if segment_ids_BQ is not None:
        own_BR = jnp.take_along_axis(segment_ids_BQ, rows_BR, axis=1)
        visible_BRQ &= own_BR[:, :, None] == segment_ids_BQ[:, None]
    visible_BHRQ = jnp.broadcast_to(visible_BRQ[:, None], scores_BHRQ.shape)
    if bias_BHQQ is not None:
        bias_BHRQ = jnp.take_along_axis(bias_BHQQ, rows_BR[:, None, :, None], axis=2)
        is_open_BHRQ = bias_BHRQ > -jnp.inf
        scores_BHRQ += jnp.where(is_open_BHRQ, bias_BHRQ, 0.0)
        visible_BHRQ &= is_open_BHRQ
    return masked_softmax(scores_BHRQ, visible_BHRQ)


def xla(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    value_BKGC: Float[Array, "B K G C"],
    q_bits_BQW: UInt32[Array, "B Q W"] | None,
    k_bits_BKW: UInt32[Array, "B K W"] | None,
    segment_ids_BK: Int32[Array, "B K"] | None,
    scale: float,
    bias_BHQK: Float32[Array, "B H Q K"] | None = None,
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Compute attention and mass from full maps in O(Q K) memory: what every kernel must equal."""
    probs_BGMK = _grouped_probabilities(query_BQHC, key_BKGC, segment_ids_BK, scale, bias_BHQK)
    out_BGMC = jnp.einsum(
        "BGMK,BGKC->BGMC",
        probs_BGMK.astype(value_BKGC.dtype),
        value_BKGC.swapaxes(1, 2),
        preferred_element_type=jnp.float32,
    )
    batch, queries, heads, _ = query_BQHC.shape
    out_BHQC = out_BGMC.reshape(batch, heads, queries, -1)
    out_BQHC = out_BHQC.swapaxes(1, 2).astype(query_BQHC.dtype)
    if q_bits_BQW is None or k_bits_BKW is None:
        return out_BQHC, None
    annotated_BQK = annotated_pairs(q_bits_BQW, k_bits_BKW)
    probs_BHQK = probs_BGMK.reshape(batch, heads, queries, -1)
    return out_BQHC, jnp.where(annotated_BQK[:, None], probs_BHQK, 0.0).sum(-1)


def biased_attention(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    value_BKGC: Float[Array, "B K G C"],
    bias_BHQK: Float32[Array, "B H Q K"],
    q_bits_BQW: UInt32[Array, "B Q W"] | None = None,
    k_bits_BKW: UInt32[Array, "B K W"] | None = None,
    *,
    segment_ids: Int32[Array, "B K"] | None = None,
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Compute ``causal_mass_attention`` with a bias added to the scaled scores, from full maps.

    No kernel takes a bias: this is plain XLA in O(Q K) memory, for analysis and small models.

    Args:
        query_BQHC: Queries.
        key_BKGC: Keys.
        value_BKGC: Values.
        bias_BHQK: What is added to the score of each edge; -inf hides the key from the query. A
            query that sees no key attends to nothing: its probabilities, its output and the
            gradients through it are zero.
        q_bits_BQW: Annotation bits of the queries, or None.
        k_bits_BKW: Annotation bits of the keys, or None.
        segment_ids: Queries attend only within equal ids.

    Returns:
        Output [B, Q, H, C] and, with bits, the causal mass [B, H, Q].
    """
    scale = float(query_BQHC.shape[-1]) ** -0.5
    return xla(
        query_BQHC, key_BKGC, value_BKGC, q_bits_BQW, k_bits_BKW, segment_ids, scale, bias_BHQK
    )
