"""Attention and mass in O(T) memory: online softmax over blocks, with a backward of its own.

Query blocks run one after the other; each loops over the key blocks up to the diagonal:

    keys  0  1  2  3
    q 0   x              x  computed, one float32 tile [B, H, block, block] at a time
    q 1   x  x              (a few at a time in the backward)
    q 2   x  x  x           blank: above the diagonal, not computed
    q 3   x  x  x  x

The online softmax is that of FlashAttention (Dao et al., 2022). The forward saves the output, the
log-sum-exp and the mass of each row; the backward recomputes every tile. With g = dL/dmass,
M the annotated pairs and D_i = dO_i . O_i + g_i mass_i, the gradient of the scores is
dS_ij = P_ij (dO_i . V_j + g_i M_ij - D_i).

Inside, every array has its N blocks on axis 0 and its positions on axis -2, so that one ``_cut``
and one ``_join`` serve all: queries [N, B, G, R, Q, C], keys [N, B, G, K, C],
bits [N, B, Q, W], segments [N, B, Q, 1], statistics of rows [N, B, G, R, Q, 1].
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.causal_mass_attention.differentiable import Inputs, Kernel, softmax_delta
from pallas_kernels.causal_mass_attention.reference import LOWEST, annotated_pairs, visible_pairs
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine

BLOCK = 512


class _Rows(NamedTuple):
    query: Array
    bits: Array | None
    segments: Array | None


class _Columns(NamedTuple):
    key: Array
    value: Array
    bits: Array | None
    segments: Array | None


class _Pairs(NamedTuple):
    """Which keys of a block the queries of another read, and which are causes, [B, Q, K]."""

    visible: Array
    annotated: Array | None


class _Stats(NamedTuple):
    """Running softmax of one query block."""

    maximum: Array
    denominator: Array
    out: Array
    mass: Array | None


def unsupported_reason(spec: InputSpec, _machine: Machine | None = None) -> str | None:
    """Return in one sentence why ``xla_chunked`` does not support an input, or None.

    It supports every input on every machine, but one derivative alone: loops up to the diagonal
    have a length that reverse mode cannot know.
    """
    if spec.biased:
        return "xla_chunked takes no bias, as keys that are hidden from a query need: use xla"
    if spec.second_order:
        return (
            "xla_chunked has a backward of its own, which cannot be differentiated again as a "
            "penalty on gradients needs: use xla"
        )
    return None


def chunked_kernel(block: int = BLOCK) -> Kernel:
    """Return the kernel with tiles of at most [B, H, block, block], for any Q and K.

    Blocks are of even size; the last one is padded.
    """
    return Kernel(functools.partial(_forward, block), functools.partial(_backward, block))


def _forward(block: int, inputs: Inputs, scale: float):
    out, mass, lse = _attend(scale, *_blocks(block, inputs))
    queries = inputs.query.shape[1]
    mass_BHQ = None if mass is None else _join_statistic(mass, queries)
    return _join_heads(out, queries), mass_BHQ, _join_statistic(lse, queries)


def _backward(block: int, inputs: Inputs, scale: float, out, mass, lse, d_out, d_mass):
    delta_BHQ = softmax_delta(out, mass, d_out, d_mass)
    statistics = [None if s is None else s.swapaxes(1, 2)[..., None] for s in (d_mass, lse)]
    groups = inputs.key.shape[2]
    saved = (d_out, *statistics, delta_BHQ.swapaxes(1, 2)[..., None])
    saved = [None if x is None else _cut_heads(x, groups, block) for x in saved]
    d_query, d_key, d_value = _attend_backward(scale, *_blocks(block, inputs), saved)
    keys = inputs.key.shape[1]
    d_key, d_value = (_join(x, keys).swapaxes(1, 2) for x in (d_key, d_value))
    return _join_heads(d_query, inputs.query.shape[1]), d_key, d_value


def _blocks(block: int, inputs: Inputs) -> tuple[int, _Rows, _Columns]:
    """Cut the inputs into blocks; query n is at position ``offset + n`` of the keys."""
    queries, (keys, groups) = inputs.query.shape[1], inputs.key.shape[1:3]
    offset = keys - queries
    segments_BK1 = None if inputs.segment_ids is None else inputs.segment_ids[..., None]
    segments_BQ1 = None if segments_BK1 is None else segments_BK1[:, offset:]
    query = _cut_heads(inputs.query, groups, block)
    rows = _Rows(query, *_cut((inputs.q_bits, segments_BQ1), queries, block))
    key_BGKC, value_BGKC = inputs.key.swapaxes(1, 2), inputs.value.swapaxes(1, 2)
    columns = _Columns(key_BGKC, value_BGKC, inputs.k_bits, segments_BK1)
    return offset, rows, _cut(columns, keys, block)


def _cut_heads(x_BQHC: Array, groups: int, block: int) -> Array:
    """Cut [B, Q, H, C] into [N, B, G, R, Q, C]."""
    batch, queries, _, size = x_BQHC.shape
    x_BGRQC = x_BQHC.swapaxes(1, 2).reshape(batch, groups, -1, queries, size)
    return _cut(x_BGRQC, queries, block)


def _join_heads(x: Array, queries: int) -> Array:
    """Join [N, B, G, R, Q, C] to [B, Q, H, C]."""
    x_BGRQC = _join(x, queries)
    return x_BGRQC.reshape(x.shape[1], -1, *x_BGRQC.shape[-2:]).swapaxes(1, 2)


def _join_statistic(x: Array, queries: int) -> Array:
    """Join [N, B, G, R, Q, 1] to [B, H, Q]."""
    return _join(x, queries).reshape(x.shape[1], -1, queries)


def _cut(tree, length: int, block: int):
    """Cut [..., length, X] into [N, ..., size, X], size <= block, with zeros at the end.

    The padding needs no mask: padded keys are later than every real query, and the rows of padded
    queries are dropped, so that they get no gradient.
    """
    count = -(-length // block)
    size = -(-length // count)

    def cut(x):
        padding = [(0, 0)] * x.ndim
        padding[-2] = (0, count * size - length)
        blocks = jnp.pad(x, padding).reshape(*x.shape[:-2], count, size, x.shape[-1])
        return jnp.moveaxis(blocks, -3, 0)

    return jax.tree.map(cut, tree)


def _join(x: Array, length: int) -> Array:
    """Join [N, ..., size, X] to [..., length, X]."""
    x = jnp.moveaxis(x, 0, -3)
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])[..., :length, :]


def _dot(equation: str, x: Array, y: Array) -> Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _pairs(row: _Rows, column: _Columns, q_start: Array, k_start: Array) -> _Pairs:
    q_positions = q_start + jnp.arange(row.query.shape[-2])
    k_positions = k_start + jnp.arange(column.key.shape[-2])
    segments = [None if s is None else s[..., 0] for s in (row.segments, column.segments)]
    visible = visible_pairs(q_positions, k_positions, *segments)
    if row.bits is None or column.bits is None:
        return _Pairs(visible, None)
    return _Pairs(visible, annotated_pairs(row.bits, column.bits))


def _fold_columns(step, initial, row: _Rows, columns: _Columns, q_start: Array):
    """Fold ``step(j, carry, column, pairs)`` over the key blocks up to the diagonal."""
    count, k_size = columns.key.shape[0], columns.key.shape[-2]
    last_query = q_start + row.query.shape[-2] - 1

    def body(j, carry):
        column = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, j, keepdims=False), columns)
        return step(j, carry, column, _pairs(row, column, q_start, j * k_size))

    return lax.fori_loop(0, jnp.minimum(count, last_query // k_size + 1), body, initial)


def _absorb(scale: float, row: _Rows, _, stats: _Stats, column: _Columns, pairs: _Pairs) -> _Stats:
    """Add one more key block to the running softmax."""
    scores = scale * _dot("BGRQC,BGKC->BGRQK", row.query, column.key)
    visible = pairs.visible[:, None, None]
    largest = jnp.max(scores, -1, keepdims=True, where=visible, initial=LOWEST)
    maximum = jnp.maximum(stats.maximum, largest)
    # Zero by the mask, not by a large negative score: a row may see no key of this block.
    weights = jnp.where(visible, jnp.exp(scores - maximum), 0.0)
    decay = jnp.exp(stats.maximum - maximum)
    denominator = decay * stats.denominator + weights.sum(-1, keepdims=True)
    values = _dot("BGRQK,BGKC->BGRQC", weights.astype(column.value.dtype), column.value)
    mass = stats.mass
    if mass is not None and pairs.annotated is not None:
        annotated = pairs.annotated[:, None, None]
        mass = decay * mass + jnp.where(annotated, weights, 0.0).sum(-1, keepdims=True)
    return _Stats(maximum, denominator, decay * stats.out + values, mass)


def _attend(scale: float, offset: int, rows: _Rows, columns: _Columns):
    """Return out, mass (None without bits) and log-sum-exp, each in blocks of queries."""

    def row_block(indexed: tuple[Array, _Rows]):
        n, row = indexed
        zero_BGRQ1 = jnp.zeros((*row.query.shape[:-1], 1), jnp.float32)
        out_BGRQC = jnp.zeros(row.query.shape, jnp.float32)
        mass = None if row.bits is None else zero_BGRQ1
        initial = _Stats(zero_BGRQ1 + LOWEST, zero_BGRQ1, out_BGRQC, mass)
        q_start = offset + n * row.query.shape[-2]
        step = functools.partial(_absorb, scale, row)
        stats = _fold_columns(step, initial, row, columns, q_start)
        total = jnp.where(stats.denominator > 0, stats.denominator, 1.0)
        out = (stats.out / total).astype(row.query.dtype)
        mass = None if stats.mass is None else stats.mass / total
        return out, mass, stats.maximum + jnp.log(total)

    return lax.map(row_block, (jnp.arange(rows.query.shape[0]), rows))


def _attend_backward(scale: float, offset: int, rows: _Rows, columns: _Columns, saved):
    """Return the gradients of query, key and value, in their blocks and dtypes.

    ``saved``: d_out, d_mass, log-sum-exp and delta, in blocks of queries.
    """

    def row_block(d_columns, block):
        n, row, *saved = block
        step = functools.partial(_backward_step, scale, row, *saved)
        d_query_BGCM = jnp.zeros(_merge(row.query).swapaxes(2, 3).shape, jnp.float32)
        initial = (d_query_BGCM, *d_columns)
        q_start = offset + n * row.query.shape[-2]
        d_query_BGCM, *d_columns = _fold_columns(step, initial, row, columns, q_start)
        d_query = d_query_BGCM.swapaxes(2, 3).reshape(row.query.shape)
        return tuple(d_columns), d_query.astype(row.query.dtype)

    zeros = jnp.zeros(columns.key.shape, jnp.float32)
    blocks = (jnp.arange(rows.query.shape[0]), rows, *saved)
    (d_key, d_value), d_query = lax.scan(row_block, (zeros, zeros), blocks)
    return d_query, d_key.astype(columns.key.dtype), d_value.astype(columns.value.dtype)


def _backward_step(
    scale, row: _Rows, d_out, d_mass, lse, delta, j, grads, column: _Columns, pairs: _Pairs
):
    """Add the share of one tile to the gradients of its queries, keys and values.

    Tiles are [K, R Q] here, so that no product needs one transposed: XLA for CPUs takes longer to
    transpose a tile than to multiply by it.
    """
    d_query_BGCM, d_key, d_value = grads
    query_BGMC, d_out_BGMC = _merge(row.query), _merge(d_out)
    split = (*column.key.shape[:3], *row.query.shape[2:4])

    def by_keys(key_BGKC: Array, x_BGMC: Array) -> Array:
        return _dot("BGKC,BGMC->BGKM", key_BGKC, x_BGMC).reshape(split)

    def of_pairs(pairs_BQK: Array) -> Array:
        return pairs_BQK.swapaxes(1, 2)[:, None, :, None]

    def of_rows(x_BGRQ1: Array) -> Array:
        return x_BGRQ1[..., 0][:, :, None]

    scores = scale * by_keys(column.key, query_BGMC)
    probs = jnp.where(of_pairs(pairs.visible), jnp.exp(scores - of_rows(lse)), 0.0)
    d_probs = by_keys(column.value, d_out_BGMC)
    if pairs.annotated is not None:
        d_probs = d_probs + jnp.where(of_pairs(pairs.annotated), of_rows(d_mass), 0.0)
    d_scores = scale * probs * (d_probs - of_rows(delta))
    d_scores_BGKM = d_scores.reshape(*split[:3], -1).astype(row.query.dtype)
    probs_BGKM = probs.reshape(*split[:3], -1).astype(d_out.dtype)
    # Keys and values sum over R, the query heads that share them.
    key_share = _dot("BGKM,BGMC->BGKC", d_scores_BGKM, query_BGMC)
    value_share = _dot("BGKM,BGMC->BGKC", probs_BGKM, d_out_BGMC)
    return (
        d_query_BGCM + _dot("BGKC,BGKM->BGCM", column.key, d_scores_BGKM),
        _add_block(d_key, key_share, j),
        _add_block(d_value, value_share, j),
    )


def _merge(x_BGRQC: Array) -> Array:
    """Merge query heads that share keys with their positions: [B, G, M, C]."""
    return x_BGRQC.reshape(*x_BGRQC.shape[:2], -1, x_BGRQC.shape[-1])


def _add_block(blocks: Array, share: Array, j: Array) -> Array:
    current = lax.dynamic_index_in_dim(blocks, j, keepdims=False)
    return lax.dynamic_update_index_in_dim(blocks, current + share, j, 0)
