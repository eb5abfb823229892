"""The definition: full attention maps in plain jnp, differentiated by autodiff."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Int32, UInt32

from pallas_kernels.causal_mass_attention.support import InputSpec, Machine

LOWEST = float(jnp.finfo(jnp.float32).min)


def unsupported_reason(_spec: InputSpec, _machine: Machine | None = None) -> None:
    """Return None: ``xla`` supports every input on every machine."""


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


def masked_softmax(
    scores: Float32[Array, "*batch Q K"], visible: Bool[Array, "*#batch Q K"]
) -> Float32[Array, "*batch Q K"]:
    """Compute the softmax over visible keys; a row without any is zero, and so is its gradient."""
    largest = jnp.max(scores, axis=-1, keepdims=True, where=visible, initial=LOWEST)
    # The inner where keeps an overflow at a hidden key from turning the gradient into NaN.
    shifted = jnp.where(visible, scores - jax.lax.stop_gradient(largest), 0.0)
    weights = jnp.where(visible, jnp.exp(shifted), 0.0)
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


def attention_probabilities(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    segment_ids_BK: Int32[Array, "B K"] | None = None,
    scale: float | None = None,
) -> Float32[Array, "B H Q K"]:
    """Compute the full causal attention maps, in float32.

    With Q < K the queries are the last Q of the K positions. ``scale`` defaults to C**-0.5.
    """
    batch, queries, heads, size = query_BQHC.shape
    keys, groups = key_BKGC.shape[1:3]
    # Heads in front of positions first: on the CPU both products run 2 to 4 times as fast.
    query_BGRQC = query_BQHC.swapaxes(1, 2).reshape(batch, groups, -1, queries, size)
    key_BGKC = key_BKGC.swapaxes(1, 2)
    scores_BGRQK = jnp.einsum(
        "BGRQC,BGKC->BGRQK", query_BGRQC, key_BGKC, preferred_element_type=jnp.float32
    )
    scores_BHQK = scores_BGRQK.reshape(batch, heads, queries, keys)
    offset = keys - queries
    segments_BQ = None if segment_ids_BK is None else segment_ids_BK[:, offset:]
    positions_K = jnp.arange(keys)
    visible_BQK = visible_pairs(positions_K[offset:], positions_K, segments_BQ, segment_ids_BK)
    scores_BHQK *= size**-0.5 if scale is None else scale
    return masked_softmax(scores_BHQK, visible_BQK[:, None])


def xla(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    value_BKGC: Float[Array, "B K G C"],
    q_bits_BQW: UInt32[Array, "B Q W"] | None,
    k_bits_BKW: UInt32[Array, "B K W"] | None,
    segment_ids_BK: Int32[Array, "B K"] | None,
    scale: float,
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Compute attention and mass from full maps in O(Q K) memory: what every kernel must equal."""
    probs_BHQK = attention_probabilities(query_BQHC, key_BKGC, segment_ids_BK, scale)
    batch, heads, queries, keys = probs_BHQK.shape
    groups = key_BKGC.shape[2]
    probs_BGRQK = probs_BHQK.reshape(batch, groups, -1, queries, keys)
    out_BGRQC = jnp.einsum(
        "BGRQK,BGKC->BGRQC",
        probs_BGRQK.astype(value_BKGC.dtype),
        value_BKGC.swapaxes(1, 2),
        preferred_element_type=jnp.float32,
    )
    out_BHQC = out_BGRQC.reshape(batch, heads, queries, -1)
    out_BQHC = out_BHQC.swapaxes(1, 2).astype(query_BQHC.dtype)
    if q_bits_BQW is None or k_bits_BKW is None:
        return out_BQHC, None
    annotated_BQK = annotated_pairs(q_bits_BQW, k_bits_BKW)
    return out_BQHC, jnp.where(annotated_BQK[:, None], probs_BHQK, 0.0).sum(-1)
