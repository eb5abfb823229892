"""Self-attention that also returns the causal mass of every query."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from cat_jax.models.config import ModelConfig
from cat_jax.models.layers import RMSNorm
from cat_jax.models.projection import Projection, has_whole_rows
from cat_jax.models.rope import rotary_frequencies, rotate
from cat_jax.types import Array, Bool, Float, Int, UInt32
from pallas_kernels import Partition, attention_probabilities, causal_mass_attention

MAPS = "attention_maps"
"""Collection of the tap: make it mutable in ``apply`` to receive the full maps, "probs"."""


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
    is never read before it is overwritten. Layers are stacked in front outside the scan.
    """

    key_BSGC: Float[Array, "*N B S G C"]
    value_BSGC: Float[Array, "*N B S G C"]

    def write(self, key_BTGC: Array, value_BTGC: Array, positions_BT: Array) -> "KVCache":
        """Return the cache with the new keys and values at their positions."""
        rows_B1 = jnp.arange(positions_BT.shape[0])[:, None]
        return KVCache(
            key_BSGC=self.key_BSGC.at[rows_B1, positions_BT].set(key_BTGC),
            value_BSGC=self.value_BSGC.at[rows_B1, positions_BT].set(value_BTGC),
        )


def cached_attention(
    query_BTHC: Float[Array, "B T H C"], cache: KVCache, positions_BT: Int[Array, "B T"]
) -> Float[Array, "B T H C"]:
    """Attend from the queries at ``positions_BT`` to the cache slots up to their own."""
    slots_S = jnp.arange(cache.key_BSGC.shape[1])
    visible_BTS: Bool[Array, "B T S"] = slots_S[None, None, :] <= positions_BT[:, :, None]
    return jax.nn.dot_product_attention(
        query_BTHC, cache.key_BSGC, cache.value_BSGC, mask=visible_BTS[:, None]
    )


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: ModelConfig
    partition: Partition | None = None

    @nn.compact
    def __call__(
        self, x_BTD: Array, context: Context, cache: KVCache | None
    ) -> tuple[Array, Array | None, KVCache | None]:
        """Return the output [B, T, D], the causal mass [B, H, T] or None, and the new cache."""
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

        if self.is_mutable_collection(MAPS):
            probs_BHQK = attention_probabilities(query_BTHC, key_BTGC, context.segment_ids_BT)
            self.put_variable(MAPS, "probs", probs_BHQK)

        mass_BHT = None
        if cache is None:
            out_BTHC, mass_BHT = causal_mass_attention(
                query_BTHC,
                key_BTGC,
                value_BTGC,
                context.q_bits_BTW,
                context.k_bits_BTW,
                segment_ids=context.segment_ids_BT,
                implementation=config.attention,
                partition=self.partition,
            )
        else:
            cache = cache.write(key_BTGC, value_BTGC, context.positions_BT)
            out_BTHC = cached_attention(query_BTHC, cache, context.positions_BT)
        return self._project("output", (config.width,), inputs=2)(out_BTHC), mass_BHT, cache

    def _heads(self, name: str, heads: int) -> Projection:
        config = self.config
        return self._project(name, (heads, config.head_dim), use_bias=config.qkv_bias)

    def _project(
        self, name: str, outputs: tuple[int, ...], inputs: int = 1, use_bias: bool = False
    ) -> Projection:
        flat = has_whole_rows(self.partition)
        return Projection(outputs, inputs, use_bias, self.config.dtype, flat, name=name)
