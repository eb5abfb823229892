"""Dropout of the attention that annotated queries pay to unannotated keys.

It uses the annotation without asking for attention on causes: what is not annotated is hidden now
and then from the queries that predict an effect, so that they cannot rely on it (compare dropout of
whole columns of a map in DropAttention, Zehui et al. 2019, arXiv 1907.11065). A key that is drawn
is hidden from all queries of the same effects, in every layer and head; what other queries have
read of it is not.
"""

from typing import Any

import jax
import jax.numpy as jnp

from cat_jax.config import AttentionDropout
from cat_jax.data.batches import Batch
from cat_jax.models import ModelConfig
from cat_jax.models.edits import attention_edits
from cat_jax.types import Array, Bool, UInt32

WORD = 32


def dropped_edges(
    batch: Batch, rate: float, key: Array
) -> tuple[UInt32[Array, "B T W"], UInt32[Array, "B T W"]]:
    """Draw the edges to hide, as bits of queries and keys (``cat_jax.data.bitset``).

    For each bit, that of the queries of the same effects, every key that is no cause of theirs is
    drawn with probability ``rate``. Causes that queries of several bits have by another of them are
    never hidden from them, and neither are keys from queries that see no cause.

    Args:
        batch: Sequences with their annotation.
        rate: Probability.
        key: Key of the draws.
    """
    q_bits_BTW = jnp.where((batch.causal_count_BT > 0)[..., None], batch.q_bits_BTW, 0)
    q_BTE, k_BTE = _unpacked(q_bits_BTW), _unpacked(batch.k_bits_BTW)
    together_BEE = jnp.einsum("BTE,BTF->BEF", q_BTE, q_BTE, preferred_element_type=jnp.int32)
    is_cause_BTE = jnp.einsum(
        "BEF,BTF->BTE", (together_BEE > 0) | jnp.eye(q_BTE.shape[-1], dtype=bool)[None], k_BTE
    )
    drawn_BTE = jax.random.bernoulli(key, float(rate), k_BTE.shape)
    return q_bits_BTW.astype(jnp.uint32), _packed(drawn_BTE & ~is_cause_BTE)


def dropout_edits(
    config: ModelConfig, batch: Batch, dropout: AttentionDropout, key: Array
) -> dict[str, Any]:
    """Return the collection that hides the drawn edges in every layer and head."""
    hidden_NH = jnp.full((config.num_layers, config.num_heads), -jnp.inf)
    return attention_edits(hidden_NH, *dropped_edges(batch, dropout.rate, key))


def _unpacked(bits_BTW: UInt32[Array, "B T W"]) -> Bool[Array, "B T E"]:
    """Return one boolean for each bit, the lowest of the first word first."""
    bits_BTWE = (bits_BTW[..., None] >> _shifts()) & 1
    return (bits_BTWE != 0).reshape(*bits_BTW.shape[:-1], -1)


def _packed(bits_BTE: Bool[Array, "B T E"]) -> UInt32[Array, "B T W"]:
    bits_BTWE = bits_BTE.reshape(*bits_BTE.shape[:-1], -1, WORD).astype(jnp.uint32)
    return (bits_BTWE << _shifts()).sum(-1, dtype=jnp.uint32)


def _shifts() -> Array:
    return jnp.arange(WORD, dtype=jnp.uint32)[None, None, None]
