"""The same attention in O(T) memory: online softmax over blocks, with its own backward.

Query blocks run one after the other; each walks the key blocks up to the diagonal:

    keys  0  1  2  3
    q 0   x              x  computed: one [B, H, block, block] float32 tile at a time
    q 1   x  x              (a few of them in the backward)
    q 2   x  x  x           blank: above the diagonal, never visited
    q 3   x  x  x  x

The online softmax is that of FlashAttention (Dao et al., 2022). The forward saves the output, the
log-sum-exp and the mass of each row; the backward computes every tile again. With g = dL/dmass,
M the annotated pairs and D_i = dO_i . O_i + g_i mass_i, the gradient of the scores is
dS_ij = P_ij (dO_i . V_j + g_i M_ij - D_i).

Inside, every array is cut into N blocks in front and has its positions on axis -2, so that one
``_cut`` and one ``_join`` serve them all: queries [N, B, G, R, Q, C], keys [N, B, G, K, C],
bits [N, B, Q, W], segments [N, B, Q, 1], statistics of rows [N, B, G, R, Q, 1].
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Float32, Int32, UInt32

from pallas_kernels.causal_mass_attention.reference import LOWEST, annotated_pairs, visible_pairs

BLOCK = 512

RESIDUAL_NAMES = ("causal_mass_out", "causal_mass_mass", "causal_mass_lse")
"""For ``jax.checkpoint_policies.save_only_these_names``: saved, no forward runs twice."""


class _Rows(NamedTuple):
    query: Array
    bits: Array | None
    segments: Array | None


class _Columns(NamedTuple):
    key: Array
    value: Array
    bits: Array | None
    segments: Array | None


class _Tile(NamedTuple):
    """Scores of one query block against one key block, [B, G, R, Q, K]."""

    scores: Array
    visible: Array
    annotated: Array | None


class _Stats(NamedTuple):
    """The running softmax of one query block."""

    maximum: Array
    denominator: Array
    out: Array
    mass: Array | None


def xla_chunked(
    query_BQHC: Float[Array, "B Q H C"],
    key_BKGC: Float[Array, "B K G C"],
    value_BKGC: Float[Array, "B K G C"],
    q_bits_BQW: UInt32[Array, "B Q W"] | None,
    k_bits_BKW: UInt32[Array, "B K W"] | None,
    segment_ids_BK: Int32[Array, "B K"] | None,
    scale: float,
    *,
    block: int = BLOCK,
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Attention and mass with tiles of at most [B, H, block, block]; reverse mode only.

    Any Q and K: blocks are evened out, and the last one padded.
    """
    batch, queries, heads, size = query_BQHC.shape
    keys, groups = key_BKGC.shape[1:3]
    query_BGRQC = query_BQHC.swapaxes(1, 2).reshape(batch, groups, -1, queries, size)
    segments_BK1 = None if segment_ids_BK is None else segment_ids_BK[..., None]
    segments_BQ1 = None if segments_BK1 is None else segments_BK1[:, keys - queries :]
    key_BGKC, value_BGKC = key_BKGC.swapaxes(1, 2), value_BKGC.swapaxes(1, 2)
    rows = _cut(_Rows(query_BGRQC, q_bits_BQW, segments_BQ1), queries, block)
    columns = _cut(_Columns(key_BGKC, value_BGKC, k_bits_BKW, segments_BK1), keys, block)
    out, mass = _attend(scale, keys - queries, rows, columns)
    out_BHQC = _join(out, queries).reshape(batch, heads, queries, size)
    mass_BHQ = None if mass is None else _join(mass, queries).reshape(batch, heads, queries)
    return out_BHQC.swapaxes(1, 2), mass_BHQ


def _cut(tree, length: int, block: int):
    """[..., length, X] -> [N, ..., size, X], size <= block.

    The zeros at the end need no mask: their keys come later than every true query, and the
    rows of their queries are dropped (and get no gradient).
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
    """[N, ..., size, X] -> [..., length, X]."""
    x = jnp.moveaxis(x, 0, -3)
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])[..., :length, :]


def _dot(equation: str, x: Array, y: Array) -> Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _tile(scale: float, row: _Rows, column: _Columns, q_start: Array, k_start: Array) -> _Tile:
    scores = scale * _dot("BGRQC,BGKC->BGRQK", row.query, column.key)
    q_positions = q_start + jnp.arange(row.query.shape[-2])
    k_positions = k_start + jnp.arange(column.key.shape[-2])
    segments = [None if s is None else s[..., 0] for s in (row.segments, column.segments)]
    visible = visible_pairs(q_positions, k_positions, *segments)[:, None, None]
    if row.bits is None or column.bits is None:
        return _Tile(scores, visible, None)
    return _Tile(scores, visible, annotated_pairs(row.bits, column.bits)[:, None, None])


def _fold_columns(step, initial, scale: float, row: _Rows, columns: _Columns, q_start: Array):
    """Carry ``step(j, carry, column, tile)`` over the key blocks up to the diagonal."""
    count, k_size = columns.key.shape[0], columns.key.shape[-2]
    last_query = q_start + row.query.shape[-2] - 1

    def body(j, carry):
        column = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, j, keepdims=False), columns)
        return step(j, carry, column, _tile(scale, row, column, q_start, j * k_size))

    return lax.fori_loop(0, jnp.minimum(count, last_query // k_size + 1), body, initial)


def _absorb(_, stats: _Stats, column: _Columns, tile: _Tile) -> _Stats:
    """Take one more key block into the running softmax."""
    largest = jnp.max(tile.scores, -1, keepdims=True, where=tile.visible, initial=LOWEST)
    maximum = jnp.maximum(stats.maximum, largest)
    # Zero by the mask, not by a large negative score: a row may see nothing of this block.
    weights = jnp.where(tile.visible, jnp.exp(tile.scores - maximum), 0.0)
    decay = jnp.exp(stats.maximum - maximum)
    denominator = decay * stats.denominator + weights.sum(-1, keepdims=True)
    values = _dot("BGRQK,BGKC->BGRQC", weights.astype(column.value.dtype), column.value)
    mass = stats.mass
    if mass is not None and tile.annotated is not None:
        mass = decay * mass + jnp.where(tile.annotated, weights, 0.0).sum(-1, keepdims=True)
    return _Stats(maximum, denominator, decay * stats.out + values, mass)


def _forward(scale: float, offset: int, rows: _Rows, columns: _Columns):
    """Return out, mass (None without bits) and log-sum-exp, each in blocks of rows."""

    def row_block(indexed: tuple[Array, _Rows]):
        n, row = indexed
        zero_BGRQ1 = jnp.zeros((*row.query.shape[:-1], 1), jnp.float32)
        out_BGRQC = jnp.zeros(row.query.shape, jnp.float32)
        mass = None if row.bits is None else zero_BGRQ1
        initial = _Stats(zero_BGRQ1 + LOWEST, zero_BGRQ1, out_BGRQC, mass)
        q_start = offset + n * row.query.shape[-2]
        stats = _fold_columns(_absorb, initial, scale, row, columns, q_start)
        total = jnp.where(stats.denominator > 0, stats.denominator, 1.0)
        out = (stats.out / total).astype(row.query.dtype)
        mass = None if stats.mass is None else stats.mass / total
        return out, mass, stats.maximum + jnp.log(total)

    return lax.map(row_block, (jnp.arange(rows.query.shape[0]), rows))


def _attend_primal(
    scale: float, offset: int, rows: _Rows, columns: _Columns
) -> tuple[Array, Array | None]:
    """Query n of the first block is at position ``offset + n`` of the keys."""
    out, mass, _ = _forward(scale, offset, rows, columns)
    return out, mass


def _attend_forward(scale: float, offset: int, rows: _Rows, columns: _Columns):
    out, mass, lse = _forward(scale, offset, rows, columns)
    out_name, mass_name, lse_name = RESIDUAL_NAMES
    out, lse = checkpoint_name(out, out_name), checkpoint_name(lse, lse_name)
    mass = None if mass is None else checkpoint_name(mass, mass_name)
    return (out, mass), (rows, columns, out, mass, lse)


def _attend_backward(scale: float, offset: int, residuals, cotangents):
    rows, columns, out, mass, lse = residuals
    d_out, d_mass = cotangents
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), -1, keepdims=True)
    if mass is not None:
        delta = delta + d_mass * mass

    def row_block(d_columns, block):
        n, row, *saved = block
        step = functools.partial(_backward_step, scale, row, *saved)
        initial = (jnp.zeros(row.query.shape, jnp.float32), *d_columns)
        q_start = offset + n * row.query.shape[-2]
        d_query, *d_columns = _fold_columns(step, initial, scale, row, columns, q_start)
        return tuple(d_columns), d_query.astype(row.query.dtype)

    zeros = jnp.zeros(columns.key.shape, jnp.float32)
    blocks = (jnp.arange(rows.query.shape[0]), rows, d_out, d_mass, lse, delta)
    (d_key, d_value), d_query = lax.scan(row_block, (zeros, zeros), blocks)
    d_key, d_value = d_key.astype(columns.key.dtype), d_value.astype(columns.value.dtype)
    return _Rows(d_query, None, None), _Columns(d_key, d_value, None, None)


def _backward_step(scale, row: _Rows, d_out, d_mass, lse, delta, j, grads, column, tile):
    """Add the share of one tile to the gradients of its queries, keys and values."""
    d_query, d_key, d_value = grads
    probs = jnp.where(tile.visible, jnp.exp(tile.scores - lse), 0.0)
    d_probs = _dot("BGRQC,BGKC->BGRQK", d_out, column.value)
    if tile.annotated is not None:
        d_probs = d_probs + jnp.where(tile.annotated, d_mass, 0.0)
    d_scores = (scale * probs * (d_probs - delta)).astype(row.query.dtype)
    # Keys and values sum over R, the query heads that share them.
    key_share = _dot("BGRQK,BGRQC->BGKC", d_scores, row.query)
    value_share = _dot("BGRQK,BGRQC->BGKC", probs.astype(d_out.dtype), d_out)
    return (
        d_query + _dot("BGRQK,BGKC->BGRQC", d_scores, column.key),
        _add_block(d_key, key_share, j),
        _add_block(d_value, value_share, j),
    )


def _add_block(blocks: Array, share: Array, j: Array) -> Array:
    current = lax.dynamic_index_in_dim(blocks, j, keepdims=False)
    return lax.dynamic_update_index_in_dim(blocks, current + share, j, 0)


_attend = jax.custom_vjp(_attend_primal, nondiff_argnums=(0, 1))
_attend.defvjp(_attend_forward, _attend_backward)
