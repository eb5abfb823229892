"""How the TPU kernels cut rows into tiles, and what they know of a tile before computing it.

A position carries "marks": its W bit words, then its segment id, as int32. They lie in lanes,
[B, F, T] with the F fields padded to 8 sublanes, on both sides; a kernel that needs one side as
a column transposes that block once per row of tiles. Per block of positions a summary goes to
SMEM, [OR of each word, least segment, largest segment], from which every tile is classified
before anything is computed.
"""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.causal_mass_attention.differentiable import Inputs

LANES, SUBLANES = 128, 8
VMEM_LIMIT = 48 * 2**20
LOG2E = 1.4426950408889634
"""The hardware has 2**x; e**x is made of it."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Everything static about one call; a tile is q_block queries against k_block keys."""

    batch: int
    heads: int
    groups: int
    queries: int
    keys: int
    words: int  # 0 without bits
    segments: bool
    q_block: int
    k_block: int
    scale: float

    @classmethod
    def of(cls, inputs: Inputs, scale: float, q_block: int, k_block: int) -> "Tiling":
        """Even out the blocks: whole lanes, and no more of them than the length needs."""
        batch, queries, heads, _ = inputs.query.shape
        keys, groups = inputs.key.shape[1:3]
        words = 0 if inputs.q_bits is None else inputs.q_bits.shape[-1]
        segments = inputs.segment_ids is not None
        blocks = _even(queries, q_block), _even(keys, k_block)
        return cls(batch, heads, groups, queries, keys, words, segments, *blocks, scale)

    @property
    def q_count(self) -> int:
        """Blocks of queries."""
        return -(-self.queries // self.q_block)

    @property
    def k_count(self) -> int:
        """Blocks of keys."""
        return -(-self.keys // self.k_block)

    @property
    def per_group(self) -> int:
        """Query heads that read the same keys."""
        return self.heads // self.groups

    @property
    def offset(self) -> int:
        """Position of the first query among the keys."""
        return self.keys - self.queries

    @property
    def fields(self) -> int:
        """Marks of a position: bit words, then the segment."""
        return self.words + self.segments

    @property
    def padded_fields(self) -> int:
        """Whole sublanes of them."""
        return -(-self.fields // SUBLANES) * SUBLANES

    @property
    def strength(self) -> float:
        """|scale|, but above zero: a hidden score of -inf must stay one."""
        return max(abs(self.scale), 1e-30)

    def last_k_block(self, i: Array) -> Array:
        """The last block of keys that queries of block i may read."""
        last = jnp.maximum(self.offset + (i + 1) * self.q_block - 1, 0)
        return jnp.minimum(lax.div(last, self.k_block), self.k_count - 1)

    def first_q_block(self, j: Array) -> Array:
        """The first block of queries that may read keys of block j."""
        first = jnp.maximum(j * self.k_block - self.offset, 0)
        return jnp.minimum(lax.div(first, self.q_block), self.q_count - 1)


def _even(length: int, block: int) -> int:
    count = -(-length // block)
    return -(-length // (count * LANES)) * LANES


def tags(tiling: Tiling, inputs: Inputs) -> tuple[Array | None, Array | None]:
    """Return the marks of the queries [B, F, Q] and of the keys [B, F, K], padded."""
    if tiling.fields == 0:
        return None, None
    segments_BK = inputs.segment_ids
    segments_BQ = None if segments_BK is None else segments_BK[:, tiling.offset :]
    return (
        _marks(tiling, inputs.q_bits, segments_BQ, tiling.q_count * tiling.q_block),
        _marks(tiling, inputs.k_bits, segments_BK, tiling.k_count * tiling.k_block),
    )


def _marks(tiling: Tiling, bits_BTW, segments_BT, length: int) -> Array:
    parts = [] if bits_BTW is None else [lax.bitcast_convert_type(bits_BTW, jnp.int32)]
    parts += [] if segments_BT is None else [segments_BT[..., None]]
    tags_BFT = jnp.concatenate(parts, -1).swapaxes(1, 2)
    # Any mark would do for the padding: no true query reads it. An equal one keeps blocks uniform.
    short = length - tags_BFT.shape[2]
    tags_BFT = jnp.pad(tags_BFT, ((0, 0), (0, 0), (0, short)), mode="edge")
    return jnp.pad(tags_BFT, ((0, 0), (0, tiling.padded_fields - tiling.fields), (0, 0)))


def summary(tiling: Tiling, tags_BFT: Array | None, block: int) -> Array | None:
    """Flat int32, per row and block: the OR of each bit word, least and largest segment."""
    if tags_BFT is None:
        return None
    tags_BFNT = tags_BFT.reshape(*tags_BFT.shape[:2], -1, block)
    words_BFN = lax.reduce(
        tags_BFNT[:, : tiling.words], np.int32(0), lax.bitwise_or, dimensions=(3,)
    )
    parts = [words_BFN]
    if tiling.segments:
        segment_B1NT = tags_BFNT[:, tiling.words : tiling.words + 1]
        parts += [segment_B1NT.min(-1), segment_B1NT.max(-1)]
    return jnp.concatenate(parts, 1).swapaxes(1, 2).reshape(-1)


def for_this_tile(
    tiling: Tiling, b: Array, i: Array, j: Array, q_summary, k_summary, body: Callable
) -> None:
    """Run ``body(masked, annotated)`` as the tile needs it; not at all where nothing is visible.

    masked: some pair of the tile is hidden. annotated: some pair may share a bit.
    """
    first_query = tiling.offset + i * tiling.q_block
    first_key = j * tiling.k_block
    reached = first_key <= first_query + tiling.q_block - 1
    clear = first_key + tiling.k_block - 1 <= first_query
    width = tiling.words + 2 * tiling.segments
    q_at, k_at = (b * tiling.q_count + i) * width, (b * tiling.k_count + j) * width
    if tiling.segments:
        low = tiling.words
        q_low, q_high = q_summary[q_at + low], q_summary[q_at + low + 1]
        k_low, k_high = k_summary[k_at + low], k_summary[k_at + low + 1]
        reached &= (q_low <= k_high) & (k_low <= q_high)
        clear &= (q_low == k_high) & (k_low == q_high)
    if not tiling.words:
        pl.when(reached & clear)(lambda: body(False, False))
        pl.when(reached & ~clear)(lambda: body(True, False))
        return
    shared = q_summary[q_at] & k_summary[k_at]
    for word in range(1, tiling.words):
        shared |= q_summary[q_at + word] & k_summary[k_at + word]
    meets = shared != 0
    pl.when(reached & clear & ~meets)(lambda: body(False, False))
    pl.when(reached & ~clear & ~meets)(lambda: body(True, False))
    pl.when(reached & clear & meets)(lambda: body(False, True))
    pl.when(reached & ~clear & meets)(lambda: body(True, True))


def visible(tiling: Tiling, i: Array, j: Array, q_tags, k_tags, q_axis: int) -> Array:
    """Which pairs of the tile are visible; queries run along ``q_axis``, keys along the other.

    The marks of axis 0 are columns [F, T, 128], those of axis 1 rows [F, T].
    """
    shape = (tiling.q_block, tiling.k_block)[:: 1 if q_axis == 0 else -1]
    ahead = lax.broadcasted_iota(jnp.int32, shape, 1 - q_axis)
    ahead -= lax.broadcasted_iota(jnp.int32, shape, q_axis)
    pairs = ahead <= tiling.offset + i * tiling.q_block - j * tiling.k_block
    if tiling.segments:
        segment = tiling.words
        q_segment = _field(q_tags, segment, q_axis, shape[1])
        pairs &= q_segment == _field(k_tags, segment, 1 - q_axis, shape[1])
    return pairs


def annotated(tiling: Tiling, q_tags, k_tags, q_axis: int) -> Array:
    """Which pairs of the tile share an annotation bit; axes as for ``visible``."""
    width = tiling.k_block if q_axis == 0 else tiling.q_block
    shared = None
    for word in range(tiling.words):
        q_word = _field(q_tags, word, q_axis, width)
        both = q_word & _field(k_tags, word, 1 - q_axis, width)
        shared = both if shared is None else shared | both
    return shared != 0


def _field(ref, field: int, axis: int, width: int) -> Array:
    return repeat(ref[field], width) if axis == 0 else ref[field : field + 1, :]


def set_columns(columns, rows) -> None:
    """Turn rows [8, T] into columns [F, T, 128], each repeated over the lanes.

    Once per row of tiles: a broadcast across lanes in every tile costs more than the mass.
    """
    columns_T8 = rows[...].T
    for field in range(columns.shape[0]):
        column = columns_T8[:, field : field + 1]
        columns[field] = jnp.broadcast_to(column, (column.shape[0], LANES))


def repeat(x: Array, width: int) -> Array:
    """[T, 128] of equal lanes -> [T, width]."""
    return jnp.tile(x, (1, -(-width // LANES)))[:, :width]


def compiler_params(sequential: int) -> pltpu.CompilerParams:
    """Three axes of independent blocks, then those that a block accumulates over."""
    semantics = [pltpu.PARALLEL] * 3 + [pltpu.ARBITRARY] * sequential
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=VMEM_LIMIT)


def cost(tiling: Tiling, products: int, operands, results) -> pl.CostEstimate:
    """What the scheduler of XLA should know: visible pairs only, every operand read once."""
    pairs = tiling.queries * (tiling.offset + (tiling.queries + 1) / 2)
    pairs = int(pairs * tiling.batch * tiling.heads)
    size = operands[0].shape[-1]
    arrays = [x for x in (*operands, *results) if x is not None]
    return pl.CostEstimate(
        flops=2 * products * size * pairs,
        transcendentals=pairs,
        bytes_accessed=sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays),
    )


def dot(x: Array, y: Array, axes: tuple[int, int]) -> Array:
    """Matrix product over one axis of each, summed in float32; float32 is not rounded first."""
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    numbers = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(x, y, numbers, precision, preferred_element_type=jnp.float32)


def scores(tiling: Tiling, x: Array, y: Array) -> Array:
    """Dot products, of the sign of the scale; their size is left to the exponent."""
    products = dot(x, y, (1, 1))
    return -products if tiling.scale < 0 else products
