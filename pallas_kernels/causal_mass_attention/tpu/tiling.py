"""How the TPU kernels cut sequences into tiles, and what they know of a tile beforehand.

The tags of a position are its W words of bits, then its segment id, as int32. Positions lie along
lanes, [B, F, T] with the F tags padded to multiples of 8 sublanes, for queries and keys alike; a
kernel that needs one of the two as a column transposes that block once, before it loops over the
other. A summary of every block, [OR of each word, least segment, greatest segment], goes to SMEM,
and each tile is classified by it before anything is computed.

Where the matrix unit has columns to spare, the forward gets the mass of a tile from the product of
weights and values (``marks``), whose further columns are the bits of the keys. A query may then
have one bit at most, as ``cat_jax.data.bitset`` assigns them: the summary says of each block
whether that is so.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.causal_mass_attention.classes import WORD
from pallas_kernels.causal_mass_attention.differentiable import Inputs

LANES, SUBLANES = 128, 8
Mass = Literal["none", "bits", "marks"]
VMEM_LIMIT = 48 * 2**20
LOG2E = 1.4426950408889634
"""The hardware computes 2**x, and e**x as 2**(x log2 e)."""


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Static sizes of one call; a tile is q_block queries against k_block keys."""

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
    marks: bool = False  # whether bits of keys are columns of a product

    @classmethod
    def of(
        cls, inputs: Inputs, scale: float, q_block: int, k_block: int, marks: bool = False
    ) -> "Tiling":
        """Choose blocks of even size: multiples of 128, and no longer than the sequence needs."""
        batch, queries, heads, _ = inputs.query.shape
        keys, groups = inputs.key.shape[1:3]
        words = 0 if inputs.q_bits is None else inputs.q_bits.shape[-1]
        segments = inputs.segment_ids is not None
        blocks = _even(queries, q_block), _even(keys, k_block)
        return cls(batch, heads, groups, queries, keys, words, segments, *blocks, scale, marks)

    @property
    def q_count(self) -> int:
        """Number of query blocks."""
        return -(-self.queries // self.q_block)

    @property
    def k_count(self) -> int:
        """Number of key blocks."""
        return -(-self.keys // self.k_block)

    @property
    def per_group(self) -> int:
        """Number of query heads that read the same keys."""
        return self.heads // self.groups

    @property
    def offset(self) -> int:
        """Position of the first query among the keys."""
        return self.keys - self.queries

    @property
    def fields(self) -> int:
        """Number of tags of a position: words of bits, then the segment."""
        return self.words + self.segments

    @property
    def summary_width(self) -> int:
        """Numbers that describe a block."""
        return self.words + 2 * self.segments + self.marks

    @property
    def padded_fields(self) -> int:
        """Number of tags, rounded up to whole sets of sublanes."""
        return -(-self.fields // SUBLANES) * SUBLANES

    @property
    def strength(self) -> float:
        """|scale|, but above zero: a hidden score of -inf must stay -inf."""
        return max(abs(self.scale), 1e-30)

    def last_k_block(self, i: Array) -> Array:
        """Return the last block of keys that queries of block i may read."""
        last = jnp.maximum(self.offset + (i + 1) * self.q_block - 1, 0)
        return jnp.minimum(lax.div(last, self.k_block), self.k_count - 1)

    def copied_k_block(self, i: Array, j: Array) -> Array:
        """Return j, or above the diagonal the block of the step before: nothing is copied."""
        return jnp.minimum(j, self.last_k_block(i))

    def first_q_block(self, j: Array) -> Array:
        """Return the first block of queries that may read keys of block j."""
        first = jnp.maximum(j * self.k_block - self.offset, 0)
        return jnp.minimum(lax.div(first, self.q_block), self.q_count - 1)


def _even(length: int, block: int) -> int:
    count = -(-length // block)
    return -(-length // (count * LANES)) * LANES


def tags(tiling: Tiling, inputs: Inputs) -> tuple[Array | None, Array | None]:
    """Return the tags of the queries [B, F, Q] and of the keys [B, F, K], padded; int32."""
    if tiling.fields == 0:
        return None, None
    segments_BK = inputs.segment_ids
    segments_BQ = None if segments_BK is None else segments_BK[:, tiling.offset :]
    return (
        _padded_tags(tiling, inputs.q_bits, segments_BQ, tiling.q_count * tiling.q_block),
        _padded_tags(tiling, inputs.k_bits, segments_BK, tiling.k_count * tiling.k_block),
    )


def _padded_tags(tiling: Tiling, bits_BTW, segments_BT, length: int) -> Array:
    parts = [] if bits_BTW is None else [lax.bitcast_convert_type(bits_BTW, jnp.int32)]
    parts += [] if segments_BT is None else [segments_BT[..., None]]
    tags_BFT = jnp.concatenate(parts, -1).swapaxes(1, 2)
    # No real query reads the padding; repeating the last tag leaves the summary as it is.
    short = length - tags_BFT.shape[2]
    tags_BFT = jnp.pad(tags_BFT, ((0, 0), (0, 0), (0, short)), mode="edge")
    return jnp.pad(tags_BFT, ((0, 0), (0, tiling.padded_fields - tiling.fields), (0, 0)))


def summary(tiling: Tiling, tags_BFT: Array | None, block: int) -> Array | None:
    """Return flat int32, per block: the OR of each word, least and greatest segment, single.

    The last, with ``marks`` only, is 1 where no position of the block has more than one bit.
    """
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
    if tiling.marks:
        counts_BNT = lax.population_count(tags_BFNT[:, : tiling.words]).sum(1)
        parts += [(counts_BNT.max(-1) <= 1).astype(jnp.int32)[:, None]]
    return jnp.concatenate(parts, 1).swapaxes(1, 2).reshape(-1)


def marks(tiling: Tiling, k_tags_BFT: Array, dtype: Any) -> Array:
    """Return the bits of the keys as columns, [B, K, 128] of zeros and ones; bit b is column b."""
    bit_L = np.arange(LANES, dtype=np.int32)
    known_L = bit_L < WORD * tiling.words
    words_BKW = k_tags_BFT[:, : tiling.words].swapaxes(1, 2)
    words_BKL = words_BKW[..., np.where(known_L, bit_L // WORD, 0)]
    own_BKL = words_BKL >> (bit_L % WORD)[None, None] & known_L.astype(np.int32)[None, None]
    return own_BKL.astype(dtype)


def is_single(tiling: Tiling, b: Array, i: Array, q_summary) -> Array:
    """Return whether no query of block i has more than one bit."""
    width = tiling.summary_width
    return q_summary[(b * tiling.q_count + i) * width + width - 1] == 1


def for_this_tile(
    tiling: Tiling, b: Array, i: Array, j: Array, q_summary, k_summary, body: Callable
) -> None:
    """Run ``body(masked, mass)`` as the tile needs it, and not at all if no pair is visible.

    masked: some pair of the tile is hidden. mass: "none" where no pair shares a bit, else "marks"
    where a product gives the mass, else "bits".
    """
    first_query = tiling.offset + i * tiling.q_block
    first_key = j * tiling.k_block
    reached = first_key <= first_query + tiling.q_block - 1
    clear = first_key + tiling.k_block - 1 <= first_query
    q_at = (b * tiling.q_count + i) * tiling.summary_width
    k_at = (b * tiling.k_count + j) * tiling.summary_width
    if tiling.segments:
        low = tiling.words
        q_low, q_high = q_summary[q_at + low], q_summary[q_at + low + 1]
        k_low, k_high = k_summary[k_at + low], k_summary[k_at + low + 1]
        reached &= (q_low <= k_high) & (k_low <= q_high)
        clear &= (q_low == k_high) & (k_low == q_high)

    def run(condition, mass: Mass) -> None:
        pl.when(condition & clear)(lambda: body(False, mass))
        pl.when(condition & ~clear)(lambda: body(True, mass))

    if not tiling.words:
        run(reached, "none")
        return
    shared = q_summary[q_at] & k_summary[k_at]
    for word in range(1, tiling.words):
        shared |= q_summary[q_at + word] & k_summary[k_at + word]
    meets = shared != 0
    run(reached & ~meets, "none")
    if tiling.marks:
        single = is_single(tiling, b, i, q_summary)
        run(reached & meets & single, "marks")
        meets &= ~single
    run(reached & meets, "bits")


def visible(tiling: Tiling, i: Array, j: Array, q_tags, k_tags, q_axis: int) -> Array:
    """Return which pairs of the tile are visible, with queries along ``q_axis``.

    The tags of the positions along axis 0 are columns [F, T, 128], along axis 1 rows [F, T].
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
    """Return which pairs of the tile share an annotation bit; axes as in ``visible``."""
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

    Once per block: a broadcast across lanes in every tile would cost more than the mass.
    """
    columns_T8 = rows[...].T
    for field in range(columns.shape[0]):
        column = columns_T8[:, field : field + 1]
        columns[field] = jnp.broadcast_to(column, (column.shape[0], LANES))


def repeat(x: Array, width: int) -> Array:
    """Widen [T, 128] of equal lanes to [T, width]."""
    return jnp.tile(x, (1, -(-width // LANES)))[:, :width]


def call(
    name: str,
    kernel: Callable,
    tiling: Tiling,
    grid: tuple[int, ...],
    summaries,
    operands,
    in_specs,
    out_specs,
    out_shape,
    scratch_shapes,
    *,
    products: int,
) -> Any:
    """Run ``kernel(tiling, *summaries, *operands, *outputs, *scratch)`` over a grid.

    The first three axes of the grid are independent blocks; a block accumulates over the others.
    ``products`` counts the matrix products per tile.
    """
    semantics = [pltpu.PARALLEL] * 3 + [pltpu.ARBITRARY] * (len(grid) - 3)
    return pl.pallas_call(
        functools.partial(kernel, tiling),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(summaries),
            grid=grid,
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=scratch_shapes,
        ),
        out_shape=out_shape,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=semantics, vmem_limit_bytes=VMEM_LIMIT
        ),
        cost_estimate=_cost(tiling, products, operands, jax.tree.leaves(out_shape)),
        name=name,
    )(*summaries, *operands)


def columns_buffer(tiling: Tiling, block: int) -> Any:
    """Return the scratch shape of a block's tags as columns; None without tags."""
    return pltpu.VMEM((tiling.fields, block, LANES), jnp.int32) if tiling.fields else None


def _cost(tiling: Tiling, products: int, operands, results) -> pl.CostEstimate:
    """Estimate the cost for XLA's scheduler: visible pairs only, every operand read once."""
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
    """Multiply over one axis of each, summed in float32; float32 operands are not rounded first."""
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    numbers = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(x, y, numbers, precision, preferred_element_type=jnp.float32)


def scores(tiling: Tiling, x: Array, y: Array) -> Array:
    """Return dot products with the sign of the scale; ``strength`` is applied in the exponent."""
    products = dot(x, y, (1, 1))
    return -products if tiling.scale < 0 else products
