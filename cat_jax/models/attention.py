"""Self-attention that also returns the causal mass of every query."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from cat_jax.models.config import ModelConfig
from cat_jax.models.edits import patched, score_bias
from cat_jax.models.layers import RMSNorm
from cat_jax.models.projection import Projection, has_whole_rows
from cat_jax.models.rope import rotary_frequencies, rotate
from cat_jax.types import Array, Float, Int, UInt32
from pallas_kernels import (
    Partition,
    attention_probabilities,
    attention_rows,
    biased_attention,
    causal_mass_attention,
)

MAPS = "attention_maps"
"""Collection of the tap: make it mutable in ``apply`` to receive the full maps, "probs"."""
ROWS = "attention_rows"
"""Likewise: chosen rows of the maps, "probs", [N, B, H, R, T], whatever the implementation; the
same collection takes the positions of their queries, "queries", [N, B, R]."""
KEYS_VALUES = "keys_and_values"
"""Likewise: "key" and "value", [N, B, T, G, C], as they enter the attention."""


@struct.dataclass
class Context:
    """What every layer shares in one forward pass.

    The bits annotate which keys a query may depend on: M[i, j] = any(q_bits[i] & k_bits[j]).
    """

    positions_BT: Int[Array, "B T"]
    q_bits_BTW: UInt32[Array, "B T W"] | None = None
    k_bits_BTW: UInt32[Array, "B T W"] | None = None
    segment_ids_BT: Int[Array, "B T"] | None = None


@struct.dataclass
class KVCache:
    """Keys and values by position: slot s holds what the token at position s left.

    A query at position p reads the slots up to p, so a slot that holds the leftovers of padding
    is never read before it is overwritten.

    Attributes:
        key_BGSC: Keys of a layer; with ``layer``, of all layers, stacked in front.
        value_BGSC: Values.
        layer: Which of the stacked layers is meant.
    """

    key_BGSC: Float[Array, "*N B G S C"]
    value_BGSC: Float[Array, "*N B G S C"]
    layer: Int[Array, ""] | None = None

    def write(self, key_BGC: Array, value_BGC: Array, positions_B: Array) -> "KVCache":
        """Return the cache with one more key and value of each sequence, at its position."""
        sequences_B = jnp.arange(len(positions_B))
        where = (sequences_B, slice(None), positions_B)
        where = where if self.layer is None else (self.layer, *where)
        return KVCache(
            key_BGSC=self.key_BGSC.at[where].set(key_BGC),
            value_BGSC=self.value_BGSC.at[where].set(value_BGC),
            layer=self.layer,
        )

    def attend(self, query_BHC: Array, positions_B: Array) -> Array:
        """Attend from a query of each sequence to the slots up to its own: [B, H, C]."""
        read = (self.key_BGSC, self.value_BGSC)
        key_BGSC, value_BGSC = read if self.layer is None else (x[self.layer] for x in read)
        batch, groups, slots, size = key_BGSC.shape
        query_BGRC = query_BHC.reshape(batch, groups, -1, size)
        scores_BGRS = size**-0.5 * jnp.einsum(
            "BGRC,BGSC->BGRS", query_BGRC, key_BGSC, preferred_element_type=jnp.float32
        )
        seen_B11S = (jnp.arange(slots)[None] <= positions_B[:, None])[:, None, None]
        probs_BGRS = jax.nn.softmax(jnp.where(seen_B11S, scores_BGRS, -jnp.inf))
        out_BGRC = jnp.einsum("BGRS,BGSC->BGRC", probs_BGRS.astype(value_BGSC.dtype), value_BGSC)
        return out_BGRC.reshape(query_BHC.shape)


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: ModelConfig
    partition: Partition | None = None

    @nn.compact
    def __call__(
        self, x_BTD: Array, context: Context, cache: KVCache | None
    ) -> tuple[Array, Array | None, KVCache | None]:
        """Return the output [B, T, D], the causal mass [B, H, T] or None, and the new cache.

        With a cache T is 1: each sequence goes on by one token.
        """
        config = self.config
        query_BTHC = self._heads("query", config.num_heads)(x_BTD)
        key_BTGC = self._heads("key", config.num_kv_heads)(x_BTD)
        value_BTGC = self._heads("value", config.num_kv_heads)(x_BTD)
        if config.qk_norm:
            query_BTHC = RMSNorm(config, name="query_norm")(query_BTHC)
            key_BTGC = RMSNorm(config, name="key_norm")(key_BTGC)
        scaling = config.rope_scaling
        rope = (
            context.positions_BT,
            rotary_frequencies(config.head_dim, config.rope_theta, scaling),
            1.0 if scaling is None else scaling.amplitude,
        )
        query_BTHC, key_BTGC = rotate(query_BTHC, *rope), rotate(key_BTGC, *rope)

        bias_BHQK = score_bias(self)
        if self.is_mutable_collection(MAPS):
            probs_BHQK = attention_probabilities(
                query_BTHC, key_BTGC, context.segment_ids_BT, bias_BHQK=bias_BHQK
            )
            self.put_variable(MAPS, "probs", probs_BHQK)

        if self.is_mutable_collection(ROWS) and self.has_variable(ROWS, "queries"):
            rows_BR = self.get_variable(ROWS, "queries")
            probs_BHRT = attention_rows(
                query_BTHC,
                key_BTGC,
                rows_BR,
                context.segment_ids_BT,
                bias_BHQQ=bias_BHQK,
            )
            self.put_variable(ROWS, "probs", probs_BHRT)

        if self.is_mutable_collection(KEYS_VALUES):
            self.put_variable(KEYS_VALUES, "key", key_BTGC)
            self.put_variable(KEYS_VALUES, "value", value_BTGC)

        mass_BHT = None
        inputs = query_BTHC, key_BTGC, value_BTGC
        bits = context.q_bits_BTW, context.k_bits_BTW
        if cache is not None:
            positions_B = context.positions_BT[:, 0]
            cache = cache.write(key_BTGC[:, 0], value_BTGC[:, 0], positions_B)
            out_BTHC = cache.attend(query_BTHC[:, 0], positions_B)[:, None]
        elif bias_BHQK is not None:
            out_BTHC, mass_BHT = biased_attention(
                *inputs, bias_BHQK, *bits, segment_ids=context.segment_ids_BT
            )
        else:
            out_BTHC, mass_BHT = causal_mass_attention(
                *inputs,
                *bits,
                segment_ids=context.segment_ids_BT,
                implementation=config.attention,
                partition=self.partition,
            )
        out_BTHC = patched(self, "heads", out_BTHC)
        return self._project("output", (config.width,), inputs=2)(out_BTHC), mass_BHT, cache

    def _heads(self, name: str, heads: int) -> Projection:
        config = self.config
        return self._project(name, (heads, config.head_dim), use_bias=config.qkv_bias)

    def _project(
        self, name: str, outputs: tuple[int, ...], inputs: int = 1, use_bias: bool = False
    ) -> Projection:
        flat = has_whole_rows(self.partition)
        return Projection(outputs, inputs, use_bias, self.config.dtype, flat, name=name)
