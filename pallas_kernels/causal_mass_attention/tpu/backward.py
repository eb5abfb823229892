"""The backward TPU kernels: one for queries, one for keys and values.

With L the log-sum-exp, D_i = dO_i . O_i + g_i mass_i and M the annotated pairs, every tile is
recomputed: P = e**(S - L) and dS = P (dO V^T - where(M, D - g, D)). The mass costs a select: both
D and D - g are given as statistics of the row.

The kernel for queries has tiles [queries, keys] and loops over keys; the one for keys has tiles
[keys, queries] and loops over the queries of its R heads, so that neither transposes a tile.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.causal_mass_attention.tpu.forward import query_specs
from pallas_kernels.causal_mass_attention.tpu.tiling import (
    LANES,
    LOG2E,
    SUBLANES,
    Mass,
    Tiling,
    annotated,
    call,
    columns_buffer,
    dot,
    for_this_tile,
    repeat,
    scores,
    set_columns,
    visible,
)


def _softmax_gradient(t: Tiling, products, d_probs, stats, hits, seen):
    """Return P and dS of one tile; stats are L / |scale|, D and D - g, products lack the scale."""
    lse, delta, annotated_delta = stats
    if seen is not None:
        products = jnp.where(seen, products, -jnp.inf)
    probs = jnp.exp2((products - lse) * (t.strength * LOG2E))
    offset = delta if hits is None else jnp.where(hits, annotated_delta, delta)
    return probs, probs * (d_probs - offset)


def _queries_kernel(t: Tiling, q_summary, k_summary, q, k, v, d_out, stats, q_tags, k_tags, *refs):
    d_q, acc, columns, q_columns = refs
    b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(j == 0)
    def start():
        acc[...] = jnp.zeros_like(acc)
        set_columns(columns, stats)
        if q_columns is not None:
            set_columns(q_columns, q_tags)

    def absorb(masked: bool, mass: Mass):
        _, d_scores = _softmax_gradient(
            t,
            scores(t, q[...], k[...]),
            dot(d_out[...], v[...], (1, 1)),
            [repeat(columns[n], t.k_block) for n in range(3)],
            annotated(t, q_columns, k_tags, 0) if mass == "bits" else None,
            visible(t, i, j, q_columns, k_tags, 0) if masked else None,
        )
        acc[...] += dot(d_scores.astype(k.dtype), k[...], (1, 0))

    for_this_tile(t, b, i, j, q_summary, k_summary, absorb)

    @pl.when(j == t.k_count - 1)
    def finish():
        d_q[...] = (t.scale * acc[...]).astype(d_q.dtype)


def _keys_kernel(t: Tiling, q_summary, k_summary, q, k, v, d_out, stats, q_tags, k_tags, *refs):
    d_k, d_v, k_acc, v_acc, k_columns = refs
    b, j, r, i = pl.program_id(0), pl.program_id(2), pl.program_id(3), pl.program_id(4)

    @pl.when((r == 0) & (i == 0))
    def start():
        k_acc[...] = jnp.zeros_like(k_acc)
        v_acc[...] = jnp.zeros_like(v_acc)
        if k_columns is not None:
            set_columns(k_columns, k_tags)

    def absorb(masked: bool, mass: Mass):
        probs, d_scores = _softmax_gradient(
            t,
            scores(t, k[...], q[...]),
            dot(v[...], d_out[...], (1, 1)),
            [stats[n : n + 1, :] for n in range(3)],
            annotated(t, q_tags, k_columns, 1) if mass == "bits" else None,
            visible(t, i, j, q_tags, k_columns, 1) if masked else None,
        )
        v_acc[...] += dot(probs.astype(v.dtype), d_out[...], (1, 0))
        k_acc[...] += dot(d_scores.astype(q.dtype), q[...], (1, 0))

    for_this_tile(t, b, i, j, q_summary, k_summary, absorb)

    @pl.when((r == t.per_group - 1) & (i == t.q_count - 1))
    def finish():
        d_k[...] = (t.scale * k_acc[...]).astype(d_k.dtype)
        d_v[...] = v_acc[...].astype(d_v.dtype)


def queries_gradient(t: Tiling, query, key, value, d_out, stats, tags, summaries) -> Array:
    """Return d_query [B, H, Q, C]; stats [B, H, 8, Q] hold L / |scale|, D and D - g."""
    size = query.shape[-1]
    q_spec, k_spec, tag_specs = query_specs(t, size)
    stats_spec = pl.BlockSpec(
        (None, None, SUBLANES, t.q_block), lambda b, h, i, j, *_: (b, h, 0, i)
    )
    return call(
        "causal_mass_query_gradient",
        _queries_kernel,
        t,
        grid=(t.batch, t.heads, t.q_count, t.k_count),
        summaries=summaries,
        operands=(query, key, value, d_out, stats, *tags),
        in_specs=[q_spec, k_spec, k_spec, q_spec, stats_spec, *tag_specs],
        out_specs=q_spec,
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        scratch_shapes=[
            pltpu.VMEM((t.q_block, size), jnp.float32),
            pltpu.VMEM((3, t.q_block, LANES), jnp.float32),
            columns_buffer(t, t.q_block),
        ],
        products=3,
    )


def _key_specs(t: Tiling, size: int):
    """Return blocks of queries, of their statistics, of keys and of the tags of both.

    The grid is [B, G, key blocks, R, query blocks].
    """

    def head(g, r):
        return g * t.per_group + r

    def q_block(i, j):
        # Before the first block that counts it is that block already: nothing else is copied.
        return jnp.maximum(i, t.first_q_block(j))

    q_spec = pl.BlockSpec(
        (None, None, t.q_block, size), lambda b, g, j, r, i, *_: (b, head(g, r), q_block(i, j), 0)
    )
    stats_spec = pl.BlockSpec(
        (None, None, SUBLANES, t.q_block),
        lambda b, g, j, r, i, *_: (b, head(g, r), 0, q_block(i, j)),
    )
    k_spec = pl.BlockSpec((None, None, t.k_block, size), lambda b, g, j, r, i, *_: (b, g, j, 0))
    if not t.fields:
        return q_spec, stats_spec, k_spec, (None, None)
    fields = t.padded_fields
    q_tags = pl.BlockSpec(
        (None, fields, t.q_block), lambda b, g, j, r, i, *_: (b, 0, q_block(i, j))
    )
    k_tags = pl.BlockSpec((None, fields, t.k_block), lambda b, g, j, r, i, *_: (b, 0, j))
    return q_spec, stats_spec, k_spec, (q_tags, k_tags)


def keys_gradient(
    t: Tiling, query, key, value, d_out, stats, tags, summaries
) -> tuple[Array, Array]:
    """Return d_key and d_value [B, G, K, C]; stats as for ``queries_gradient``."""
    size = query.shape[-1]
    q_spec, stats_spec, k_spec, tag_specs = _key_specs(t, size)
    return call(
        "causal_mass_key_gradient",
        _keys_kernel,
        t,
        grid=(t.batch, t.groups, t.k_count, t.per_group, t.q_count),
        summaries=summaries,
        operands=(query, key, value, d_out, stats, *tags),
        in_specs=[q_spec, k_spec, k_spec, q_spec, stats_spec, *tag_specs],
        out_specs=[k_spec, k_spec],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (key, value)],
        scratch_shapes=[
            pltpu.VMEM((t.k_block, size), jnp.float32),
            pltpu.VMEM((t.k_block, size), jnp.float32),
            columns_buffer(t, t.k_block),
        ],
        products=4,
    )
