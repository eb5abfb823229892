"""The forward TPU kernel: online softmax, output, log-sum-exp and mass in one pass.

Tiles are [queries, keys]. Sums over keys stay as 128 partial sums in lanes until the last tile:
only the maximum needs a reduction across lanes, and the mass costs a select and an add.

With ``Tiling.marks`` the product of weights and values has further columns, the marks of the keys,
and sums the mass of every bit; a query takes the sum of its own bit when all keys were seen. A
block of queries that has more than one bit somewhere sums as without. The weights of the product
are rounded to the dtype of the values, and so are those of its mass.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.causal_mass_attention.classes import WORD
from pallas_kernels.causal_mass_attention.reference import LOWEST
from pallas_kernels.causal_mass_attention.tpu.tiling import (
    LANES,
    LOG2E,
    Mass,
    Tiling,
    annotated,
    call,
    columns_buffer,
    dot,
    for_this_tile,
    is_single,
    marks,
    repeat,
    scores,
    set_columns,
    visible,
)


def _kernel(tiling: Tiling, q_summary, k_summary, q, k, v, q_tags, k_tags, k_marks, *refs):
    out, stats, acc, top, total, mass, q_columns = refs
    b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(j == 0)
    def start():
        acc[...] = jnp.zeros_like(acc)
        top[...] = jnp.full_like(top, LOWEST)
        total[...] = jnp.zeros_like(total)
        if mass is not None:
            mass[...] = jnp.zeros_like(mass)
        if q_columns is not None:
            set_columns(q_columns, q_tags)

    def absorb(masked: bool, with_mass: Mass):
        s = scores(tiling, q[...], k[...])
        if masked:
            s = jnp.where(visible(tiling, i, j, q_columns, k_tags, 0), s, -jnp.inf)
        previous = top[...]
        # Never -inf, so that a row that has seen no key yet gets weights of zero.
        largest = jnp.maximum(previous, s.max(-1, keepdims=True))
        top[...] = largest
        exponent = tiling.strength * LOG2E
        decay = jnp.exp2((previous - largest) * exponent)
        weights = jnp.exp2((s - repeat(largest, s.shape[1])) * exponent)
        total[...] = decay * total[...] + _lane_sums(weights)
        operand = v[...] if with_mass != "marks" else jnp.concatenate([k_marks[...], v[...]], 1)
        products = dot(weights.astype(v.dtype), operand, (1, 0))
        if with_mass == "marks":
            mass[...] = decay * mass[...] + products[:, :LANES]
            products = products[:, LANES:]
        elif with_mass == "bits":
            hits = annotated(tiling, q_columns, k_tags, 0)
            mass[...] = decay * mass[...] + _lane_sums(jnp.where(hits, weights, 0.0))
        elif mass is not None:
            mass[...] = decay * mass[...]
        acc[...] = repeat(decay, acc.shape[1]) * acc[...] + products

    for_this_tile(tiling, b, i, j, q_summary, k_summary, absorb)

    @pl.when(j == tiling.k_count - 1)
    def finish():
        sums = total[...].sum(-1, keepdims=True)
        seen = sums > 0
        sums = jnp.where(seen, sums, 1.0)
        out[...] = (acc[...] / sums).astype(out.dtype)
        lse = tiling.strength * top[...] + jnp.log(sums)
        columns = jnp.where(seen, lse, 0.0)
        if mass is not None:
            lane = lax.broadcasted_iota(jnp.int32, columns.shape, 1)
            parts = mass[...]
            if tiling.marks:
                several = ~is_single(tiling, b, i, q_summary)
                parts = jnp.where(_own_bits(tiling, q_columns) | several, parts, 0.0)
            share = jnp.minimum(parts.sum(-1, keepdims=True) / sums, 1.0)  # weights are rounded
            columns = jnp.where(lane == 0, columns, share)
        stats[...] = columns.T[: stats.shape[0]]


def _own_bits(tiling: Tiling, q_columns) -> Array:
    """Return which of the first 128 bits a query has, [Q, 128]."""
    lane = lax.broadcasted_iota(jnp.int32, q_columns.shape[1:], 1)
    bits = jnp.zeros_like(lane)
    for word in range(tiling.words):
        first = word * WORD
        is_its = (lane >= first) & (lane < first + WORD)
        bits = jnp.where(is_its, q_columns[word] >> (lane - first), bits)
    return bits & 1 != 0


def _lane_sums(x: Array) -> Array:
    """Reduce [Q, K] to [Q, 128], partial sums over the keys."""
    return functools.reduce(jnp.add, (x[:, at : at + LANES] for at in range(0, x.shape[1], LANES)))


def query_specs(t: Tiling, size: int):
    """Return blocks of queries, of keys and of the tags of both.

    The grid is [B, H, query blocks, key blocks].
    """
    q_spec = pl.BlockSpec((None, None, t.q_block, size), lambda b, h, i, j, *_: (b, h, i, 0))
    k_spec = pl.BlockSpec(
        (None, None, t.k_block, size),
        lambda b, h, i, j, *_: (b, lax.div(h, t.per_group), t.copied_k_block(i, j), 0),
    )
    if not t.fields:
        return q_spec, k_spec, (None, None)
    fields = t.padded_fields
    q_tags = pl.BlockSpec((None, fields, t.q_block), lambda b, h, i, j, *_: (b, 0, i))
    k_tags = pl.BlockSpec(
        (None, fields, t.k_block), lambda b, h, i, j, *_: (b, 0, t.copied_k_block(i, j))
    )
    return q_spec, k_spec, (q_tags, k_tags)


def forward(t: Tiling, query, key, value, tags, summaries) -> tuple[Array, Array]:
    """Return out [B, H, Q, C] and stats float32 [B, H, S, Q]: log-sum-exp, then mass."""
    size = query.shape[-1]
    q_spec, k_spec, tag_specs = query_specs(t, size)
    rows = 2 if t.words else 1
    k_marks = marks(t, tags[1], value.dtype) if t.marks else None
    marks_spec = pl.BlockSpec(
        (None, t.k_block, LANES), lambda b, h, i, j, *_: (b, t.copied_k_block(i, j), 0)
    )
    stats_spec = pl.BlockSpec((None, None, rows, t.q_block), lambda b, h, i, j, *_: (b, h, 0, i))
    column = pltpu.VMEM((t.q_block, LANES), jnp.float32)
    out_shape = [
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        jax.ShapeDtypeStruct((t.batch, t.heads, rows, query.shape[2]), jnp.float32),
    ]
    return call(
        "causal_mass_forward",
        _kernel,
        t,
        grid=(t.batch, t.heads, t.q_count, t.k_count),
        summaries=summaries,
        operands=(query, key, value, *tags, k_marks),
        in_specs=[q_spec, k_spec, k_spec, *tag_specs, marks_spec if t.marks else None],
        out_specs=[q_spec, stats_spec],
        out_shape=out_shape,
        scratch_shapes=[
            pltpu.VMEM((t.q_block, size), jnp.float32),
            *(column, column, column if t.words else None),
            columns_buffer(t, t.q_block),
        ],
        products=2,
    )
