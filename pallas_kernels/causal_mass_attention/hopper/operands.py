"""What the Hopper kernels read: padded arrays, and tags of positions and of whole tiles.

Nothing here needs Mosaic GPU. Positions are padded to whole tiles and head sizes to those of
``SIZES``. A padded key is later than every query; a padded query, its dO and its delta are zero, so
that it adds nothing to a gradient.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.causal_mass_attention.classes import WORD
from pallas_kernels.causal_mass_attention.differentiable import Inputs, softmax_delta
from pallas_kernels.causal_mass_attention.hopper.tiles import (
    BLOCK,
    ROWS,
    TileSizes,
    padded_size,
)

LOG2_E = math.log2(math.e)


class Problem(NamedTuple):
    """Static sizes; lengths are padded, and query i is at position offset + i of the keys."""

    batch: int
    heads: int
    groups: int
    size: int
    queries: int
    keys: int
    offset: int
    dtype: Any
    scale: float
    segments: bool
    words: int
    interpret_friendly: bool

    @property
    def tag_count(self) -> int:
        """Number of tags of one position: its segment, if there are segments, and its words."""
        return self.segments + self.words


class Operands(NamedTuple):
    """Padded arrays that the kernels read, as refs inside a kernel; None where there are none.

    Attributes:
        query: As padded, [B, Q, H, C].
        key: As padded, [B, K, G, C].
        value: As padded, [B, K, G, C].
        q_tags: Tags of the queries, int32 [B, tags, Q].
        k_tags: Tags of the keys, int32 [B, tags, K].
        q_tiles: Entries of each tile of queries, int32 [B, N, E]: least and greatest segment
            (if there are segments), the union of each word of bits, and (with bits) the number of
            the bit if the union is a single one, else -1.
        k_tiles: Likewise of each tile of keys.
        k_planes: float32 [B, 32 W, K], 1.0 where the key has the bit, else 0.0.
        reach: int32 [B, N], of every block of 128: the first tile of keys that its queries meet,
            or the end of the tiles of queries that its keys meet.
        d_out: Gradient of the output, as padded.
        statistics: float32 [B, H, 2 or 3, Q]: log-sum-exp in base 2, delta and d_mass, which is
            zero for queries without bits.
    """

    query: Any
    key: Any
    value: Any
    q_tags: Any
    k_tags: Any
    q_tiles: Any
    k_tiles: Any
    reach: Any
    k_planes: Any = None
    d_out: Any = None
    statistics: Any = None


def prepare(sizes: TileSizes, inputs: Inputs, scale: float) -> tuple[Problem, Operands]:
    """Return the problem with its padded arrays and tags; tiles depend on the kernel."""
    batch, queries, heads, size = inputs.query.shape
    keys, groups = inputs.key.shape[1:3]
    segments, bits = inputs.segment_ids, inputs.q_bits
    problem = Problem(
        batch=batch,
        heads=heads,
        groups=groups,
        size=padded_size(size),
        queries=_round_up(queries, math.lcm(BLOCK, sizes.key_gradient.columns)),
        keys=_round_up(keys, math.lcm(BLOCK, sizes.forward.columns, sizes.query_gradient.columns)),
        offset=keys - queries,
        dtype=inputs.query.dtype,
        scale=scale,
        segments=segments is not None,
        words=0 if bits is None else bits.shape[-1],
        interpret_friendly=sizes.interpret_friendly,
    )
    q_segments = None if segments is None else segments[:, keys - queries :]
    operands = Operands(
        _pad(inputs.query, {1: problem.queries, 3: problem.size}),
        _pad(inputs.key, {1: problem.keys, 3: problem.size}),
        _pad(inputs.value, {1: problem.keys, 3: problem.size}),
        q_tags=_tags(q_segments, bits, problem.queries),
        k_tags=_tags(segments, inputs.k_bits, problem.keys),
        q_tiles=None,
        k_tiles=None,
        reach=None,
    )
    return problem, operands


def with_cotangents(
    problem: Problem, operands: Operands, out, mass, lse, d_out, d_mass
) -> Operands:
    """Add d_out and the statistics that the gradient kernels read."""
    return operands._replace(
        d_out=_pad(d_out.astype(problem.dtype), {1: problem.queries, 3: problem.size}),
        statistics=_statistics(problem, operands, out, mass, lse, d_out, d_mass),
    )


def _statistics(problem: Problem, operands: Operands, out, mass, lse, d_out, d_mass) -> Array:
    """Return base-2 log-sum-exp, delta and d_mass of each query, float32 [B, H, 2 or 3, Q]."""
    statistics = [lse * LOG2_E, softmax_delta(out, mass, d_out, d_mass)]
    if mass is not None:
        statistics.append(zero_without_bits(problem, operands, d_mass))
    return _pad(jnp.stack(statistics, axis=2), {3: problem.queries})


def zero_without_bits(problem: Problem, operands: Operands, x_BHQ: Array) -> Array:
    """Zero what belongs to queries without bits, which a tile of one class treats as the others."""
    words = operands.q_tags[:, problem.segments :, : x_BHQ.shape[-1]]
    return jnp.where((words != 0).any(1)[:, None], x_BHQ, 0.0)


def _round_up(length: int, step: int) -> int:
    return -(-length // step) * step


def _pad(x: Array, lengths: dict[int, int], **how) -> Array:
    widths = [(0, lengths.get(axis, size) - size) for axis, size in enumerate(x.shape)]
    return x if not any(after for _, after in widths) else jnp.pad(x, widths, **how)


def _tags(segments: Array | None, bits: Array | None, length: int) -> Array | None:
    """Return the segment, then the words of bits, int32 [B, tags, T]."""
    tags = []
    if segments is not None:  # the padding repeats the last segment: its tile keeps a single one
        tags.append(_pad(segments[:, None], {2: length}, mode="edge"))
    if bits is not None:
        tags.append(_pad(lax.bitcast_convert_type(bits, jnp.int32).swapaxes(1, 2), {2: length}))
    return jnp.concatenate(tags, axis=1) if tags else None


def _tiles(problem: Problem, tags: Array | None, step: int) -> Array | None:
    """Return the entries of each tile (see ``Operands``), int32 [B, N, E]."""
    if tags is None:
        return None
    cut = tags.reshape(*tags.shape[:2], -1, step)
    entries = []
    if problem.segments:
        entries += [x[:, None] for x in _extremes(tags[:, 0], step)]
    if problem.words:
        union = lax.reduce(cut[:, problem.segments :], jnp.int32(0), lax.bitwise_or, (3,))
        entries += [union, _single_bit(union)]
    return jnp.concatenate(entries, axis=1).swapaxes(1, 2)


def _single_bit(words: Array) -> Array:
    """Return the number of the only bit of each column of words [B, W, N], or -1, [B, 1, N]."""
    bits = _bits(words)
    number = jnp.argmax(bits, axis=1).astype(jnp.int32)
    return jnp.where(bits.sum(1) == 1, number, -1)[:, None]


def _bits(words: Array) -> Array:
    """Unpack words [B, W, T] into bits of 0 and 1, [B, 32 W, T], in their own type."""
    shifts = jnp.arange(WORD, dtype=words.dtype)[None, None, :, None]
    bits = (words[:, :, None] >> shifts) & 1
    return bits.reshape(len(words), -1, words.shape[-1])


def cut_keys(problem: Problem, operands: Operands, step: int) -> Operands:
    """Add tiles for query blocks that loop over key tiles of ``step``, from the first they meet."""
    meet = _meeting(problem, operands.q_tags, operands.k_tags, step)
    return operands._replace(
        q_tiles=_tiles(problem, operands.q_tags, ROWS),
        k_tiles=_tiles(problem, operands.k_tags, step),
        reach=None if meet is None else jnp.argmax(meet, axis=-1).astype(jnp.int32),
        k_planes=_planes(problem, operands),
    )


def _planes(problem: Problem, operands: Operands) -> Array | None:
    if not problem.words:
        return None
    return _bits(operands.k_tags[:, problem.segments :]).astype(jnp.float32)


def cut_queries(problem: Problem, operands: Operands, step: int) -> Operands:
    """Add tiles for key blocks that loop over query tiles of ``step``, to the last they meet."""
    meet = _meeting(problem, operands.k_tags, operands.q_tags, step)
    if meet is not None:
        ends = jnp.arange(1, meet.shape[-1] + 1, dtype=jnp.int32)
        meet = jnp.where(meet, ends[None, None], 0).max(axis=-1)
    return operands._replace(
        q_tiles=_tiles(problem, operands.q_tags, step),
        k_tiles=_tiles(problem, operands.k_tags, ROWS),
        reach=meet,
    )


def _meeting(problem: Problem, rows: Any, columns: Any, step: int) -> Array | None:
    """Return which row blocks may share a segment with which column tiles, bool [B, M, N]."""
    if not problem.segments:
        return None
    row_least, row_most = _extremes(rows[:, 0], BLOCK)
    column_least, column_most = _extremes(columns[:, 0], step)
    return (row_least[:, :, None] <= column_most[:, None]) & (
        column_least[:, None] <= row_most[:, :, None]
    )


def _extremes(segments: Array, step: int) -> tuple[Array, Array]:
    """Return the least and greatest segment of each tile of ``step`` positions, [B, N] each."""
    cut = segments.reshape(len(segments), -1, step)
    return cut.min(-1), cut.max(-1)
