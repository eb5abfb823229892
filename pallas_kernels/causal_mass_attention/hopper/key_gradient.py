"""Gradients of keys and values for Hopper: blocks of 128 keys loop over the later query tiles.

Tiles are transposed, keys as rows: dV = P^T dO and dK = scale dS^T Q. A block loops over the query
heads of its group and sums them in float32 registers. With few keys there would be fewer blocks
than multiprocessors: then each block takes a part of the heads, and the parts, rounded to the dtype
of the keys, are summed outside in float32.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.causal_mass_attention.hopper.operands import LOG2_E, Operands, Problem
from pallas_kernels.causal_mass_attention.hopper.parts import (
    Term,
    add_products,
    drain,
    full,
    hide_later,
    kernel,
    load,
    matrix,
    opaque,
    over_columns,
    over_rows,
    produce,
    ring,
    staging_buffer,
    staging_of,
    tags_buffer,
    tags_of_rows,
    tile_of,
)
from pallas_kernels.causal_mass_attention.hopper.tiles import (
    BLOCK,
    COMPUTING,
    MULTIPROCESSORS,
    ROWS,
    Tile,
)


class KeyGradients(NamedTuple):
    """Gradients [B, K, G, C] in the dtype of the keys; None if another pass computes it."""

    key: Any
    value: Any


def key_gradients(
    problem: Problem, tile: Tile, operands: Operands, *, key: bool = True, value: bool = True
) -> KeyGradients:
    """Run one pass over the tiles, for dK, dV or both."""
    rows = matrix(ROWS, problem.size, problem.dtype, tile.width)(COMPUTING)
    queries = matrix(tile.columns, problem.size, problem.dtype, tile.width)
    statistics = operands.statistics.shape[2]
    tags = tags_buffer(problem, tile.columns)
    scratch = {
        "key": rows,
        "value": rows,
        "ready": plgpu.Barrier(num_arrivals=2, num_barriers=COMPUTING),
        "ring": ring(
            tile.stages,
            queries,
            queries,
            lambda lead: plgpu.SMEM((lead, statistics, tile.columns), jnp.float32),
            *tags,
        ),
        "staging": staging_buffer(problem, tile),
    }
    parts = parts_of_group(problem)
    batch, keys, groups, size = operands.key.shape
    shape = jax.ShapeDtypeStruct((batch, keys, groups * parts, size), problem.dtype)
    shapes = KeyGradients(shape if key else None, shape if value else None)
    blocks = {"part": groups * parts, "block": problem.keys // BLOCK, "sequence": problem.batch}
    name = "causal_mass_key_gradient"
    results = kernel(name, KeyGradientBlock, problem, tile, operands, shapes, scratch, blocks)
    if parts == 1:
        return results
    shape = (batch, keys, groups, parts, size)
    return jax.tree.map(
        lambda x: x.reshape(shape).sum(3, dtype=jnp.float32).astype(problem.dtype), results
    )


def parts_of_group(problem: Problem) -> int:
    """Return into how many parts to cut a group's query heads for two blocks per multiprocessor."""
    heads = problem.heads // problem.groups
    blocks = problem.batch * problem.groups * (problem.keys // BLOCK)
    enough = [n for n in range(1, heads) if heads % n == 0 and n * blocks >= 2 * MULTIPROCESSORS]
    return min(enough, default=heads)


class KeyGradientBlock:
    """Gradients of 128 keys from a part of a group's heads; this warpgroup has 64, from ``start``.

    The tiles [first, stop) of each query head are the same for all three warpgroups.
    """

    def __init__(self, problem: Problem, tile: Tile, refs: Operands, results, scratch):
        self.problem, self.tile, self.refs, self.results = problem, tile, refs, results
        self.scratch = scratch
        parts = parts_of_group(problem)
        self.heads = problem.heads // (problem.groups * parts)
        self.sequence, self.part = lax.axis_index("sequence"), lax.axis_index("part")
        self.group = lax.div(self.part, jnp.int32(parts))
        self.block, self.warpgroup = lax.axis_index("block"), lax.axis_index("warpgroup")
        count = problem.queries // tile.columns
        self.stop = (
            jnp.int32(count) if refs.reach is None else refs.reach[self.sequence, self.block]
        )
        self.first = jnp.minimum(self._first_tile(self.block * BLOCK), self.stop)

    def _first_tile(self, key: Array) -> Array:
        """Return the first query tile that can see the key."""
        return lax.div(jnp.maximum(key - self.problem.offset, 0), self.tile.columns)

    def copy(self) -> None:
        """Stream the query tiles of one head after the other, with dO, statistics and tags."""
        refs, columns, length = self.refs, self.tile.columns, self.stop - self.first

        def source(step):
            head = self.part * self.heads + lax.div(step, length)
            where = pl.ds((self.first + lax.rem(step, length)) * columns, columns)
            sources = [ref.at[self.sequence, where, head] for ref in (refs.query, refs.d_out)]
            sources.append(refs.statistics.at[self.sequence, head, :, where])
            if self.problem.tag_count:
                sources.append(refs.q_tags.at[self.sequence, :, where])
            return sources

        produce(length * self.heads, self.tile.stages, (self.scratch["ring"], source))

    def compute(self) -> None:
        """Sum the gradients over the queries that see these 64 keys."""
        problem, refs = self.problem, self.refs
        self.start = self.block * BLOCK + self.warpgroup * ROWS
        where = (self.sequence, pl.ds(self.start, ROWS), self.group)
        self.key = self.scratch["key"].at[self.warpgroup]
        self.value = self.scratch["value"].at[self.warpgroup]
        ready = self.scratch["ready"].at[self.warpgroup]
        plgpu.copy_gmem_to_smem(refs.key.at[where], self.key, ready)
        plgpu.copy_gmem_to_smem(refs.value.at[where], self.value, ready)
        self.tags: Any = tags_of_rows(problem, refs.k_tags, refs.k_tiles, self.sequence, self.start)
        plgpu.barrier_wait(ready)
        zeros = full((ROWS, problem.size), 0.0)
        wanted = KeyGradients(*(None if result is None else zeros for result in self.results))
        self._store(lax.fori_loop(0, self.heads, self._walk, wanted))

    def _walk(self, head: Array, sums: KeyGradients) -> KeyGradients:
        """Loop over the query tiles of one head: those to skip, masked ones, the rest."""
        columns, stages = self.tile.columns, self.tile.stages
        start, first, stop = opaque(self.start, self.first, self.stop)
        begin = jnp.minimum(self._first_tile(start), stop)
        last_key = start + ROWS - 1 - self.problem.offset
        unmasked = jnp.clip(lax.div(jnp.maximum(last_key, 0) + columns - 1, columns), begin, stop)
        base = head * (stop - first) - first  # the n-th tile is step base + n
        drain(base + first, base + begin, stages, self.scratch["ring"])
        diagonal = functools.partial(self._add, base, diagonal=True)
        sums = lax.fori_loop(begin, unmasked, diagonal, sums)
        inside = functools.partial(self._add, base, diagonal=False)
        return lax.fori_loop(unmasked, stop, inside, sums)

    def _add(self, base: Array, n: Array, sums: KeyGradients, *, diagonal: bool) -> KeyGradients:
        """Add what one query tile contributes."""
        friendly, ring = self.problem.interpret_friendly, self.scratch["ring"]
        warpgroup, slot = opaque(self.warpgroup, lax.rem(base + n, jnp.int32(self.tile.stages)))
        key, value = (self.scratch[name].at[warpgroup] for name in ("key", "value"))
        tile = tile_of(self.refs.q_tiles, self.sequence, n) if self.tags is not None else ()
        plgpu.barrier_wait(ring.full.at[slot])
        query, d_out, statistics, *tags = (buffer.at[slot] for buffer in ring.buffers)
        zeros = full((ROWS, self.tile.columns), 0.0)
        terms = [Term(zeros, key, query.transpose((1, 0)))]
        if sums.key is not None:
            share = self._mass_share(statistics, tags, tile)
            terms.append(Term(share, value, d_out.transpose((1, 0))))
        scores, *d_weights = add_products(friendly, *terms)
        weights = self._weights(n, scores, statistics, tags, tile, diagonal)
        staging = staging_of(self.scratch, warpgroup)
        terms = []
        if sums.key is not None:
            d_scores = (weights * d_weights[0]).astype(self.problem.dtype)
            terms.append(Term(sums.key, d_scores, query, staging))
        if sums.value is not None:
            weights = weights.astype(self.problem.dtype)
            terms.append(Term(sums.value, weights, d_out, staging))
        totals = iter(add_products(friendly, *terms))
        plgpu.barrier_arrive(ring.empty.at[slot])
        return KeyGradients(*(None if total is None else next(totals) for total in sums))

    def _weights(self, n, scores, statistics, tags, tile, diagonal: bool) -> Array:
        scores = scores * (self.problem.scale * LOG2_E)
        scores = scores - over_rows(load(statistics.at[0], 0), scores.shape)
        if self.tags is not None:
            scores = self.tags.hide_other_segments(scores, tags[0], tile)
        if diagonal:
            gap = self.problem.offset + n * self.tile.columns - self.start
            scores = hide_later(scores, gap, query_axis=1)
        return jnp.exp2(scores)

    def _mass_share(self, statistics, tags, tile) -> Array:
        """Return g [annotated] - delta: what the gradient of the weights has besides V . dO."""
        shape = (ROWS, self.tile.columns)
        share = over_rows(-load(statistics.at[1], 0), shape)
        if not self.problem.words:
            return share

        def of_class(share):
            d_mass = over_rows(load(statistics.at[2], 0), shape)
            return d_mass * over_columns(self.tags.marks_of_rows(tile), shape) + share

        def of_pairs(annotated, share):
            d_mass = over_rows(load(statistics.at[2], 0), shape)
            return share + jnp.where(annotated, d_mass, 0.0)

        choices = of_class, of_pairs, lambda share: share
        return self.tags.by_annotation(tags[0], tile, tile[-1] >= 0, *choices, share)

    def _store(self, sums: KeyGradients) -> None:
        pairs = []
        if sums.key is not None:
            self.key[...] = (sums.key * self.problem.scale).astype(self.problem.dtype)
            pairs.append((self.key, self.results.key))
        if sums.value is not None:
            self.value[...] = sums.value.astype(self.problem.dtype)
            pairs.append((self.value, self.results.value))
        plgpu.commit_smem()
        where = (self.sequence, pl.ds(self.start, ROWS), self.part)
        for smem, result in pairs:
            plgpu.copy_smem_to_gmem(smem, result.at[where])
        plgpu.wait_smem_to_gmem(0)
