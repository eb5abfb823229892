"""Gradient of the queries for Hopper: blocks of 128 queries loop over key tiles.

With g = d_mass and delta = sum(dO * O) + g mass, the gradient of a score is
dS = P (dO . V + g [annotated] - delta), and dQ = scale dS K.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
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
    plane_buffer,
    produce,
    ring,
    staging_buffer,
    staging_of,
    tags_buffer,
    tile_of,
)
from pallas_kernels.causal_mass_attention.hopper.queries import QueryBlock, query_blocks
from pallas_kernels.causal_mass_attention.hopper.tiles import COMPUTING, ROWS, Tile


def query_gradient(problem: Problem, tile: Tile, operands: Operands) -> Array:
    """Return dQ [B, Q, H, C] in the dtype of the queries."""
    rows = matrix(ROWS, problem.size, problem.dtype, tile.width)(COMPUTING)
    keys = matrix(tile.columns, problem.size, problem.dtype, tile.width)
    tags = (*tags_buffer(problem, tile.columns), *plane_buffer(problem, tile.columns))
    scratch = {
        "query": rows,
        "d_out": rows,
        "ready": plgpu.Barrier(num_arrivals=2, num_barriers=COMPUTING),
        "ring": ring(tile.stages, keys, keys, *tags),
        "staging": staging_buffer(problem, tile),
    }
    shape = jax.ShapeDtypeStruct(operands.query.shape, problem.dtype)
    name, blocks = "causal_mass_query_gradient", query_blocks(problem)
    return kernel(name, QueryGradientBlock, problem, tile, operands, shape, scratch, blocks)


class QueryGradientBlock(QueryBlock):
    """Gradient of 128 queries of one head."""

    def copy(self) -> None:
        """Stream key tiles, value tiles and tags in one ring."""

        def source(n):
            keys, values = (self.keys_of(ref, n) for ref in (self.refs.key, self.refs.value))
            return keys, values, *self.tags_of_keys(n)

        produce(self.stop - self.first, self.tile.stages, (self.scratch["ring"], source))

    def compute(self) -> None:
        """Sum the gradient over the keys that these 64 queries see."""
        self.locate_rows()
        query, d_out = (self.scratch[name].at[self.warpgroup] for name in ("query", "d_out"))
        ready = self.scratch["ready"].at[self.warpgroup]
        plgpu.copy_gmem_to_smem(self.queries_of(self.refs.query), query, ready)
        plgpu.copy_gmem_to_smem(self.queries_of(self.refs.d_out), d_out, ready)
        self.load_tags()
        statistics = self.refs.statistics
        self.lse, self.delta, *rest = (
            load(statistics.at[self.sequence, self.head, n, self.where], 1)
            for n in range(statistics.shape[2])
        )
        self.d_mass: Any = rest[0] if rest else None
        plgpu.barrier_wait(ready)
        d_query = self.walk(self._add, full((ROWS, self.problem.size), 0.0), self._skip)
        query[...] = (d_query * self.problem.scale).astype(self.problem.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(query, self.queries_of(self.results))
        plgpu.wait_smem_to_gmem(0)

    def _skip(self, start: Array, stop: Array) -> None:
        drain(start, stop, self.tile.stages, self.scratch["ring"])

    def _add(self, n: Array, d_query: Array, *, diagonal: bool) -> Array:
        """Add what one key tile contributes."""
        friendly, ring = self.problem.interpret_friendly, self.scratch["ring"]
        slot = lax.rem(n - self.first, jnp.int32(self.tile.stages))
        warpgroup, slot = opaque(self.warpgroup, slot)
        query, d_out = (self.scratch[name].at[warpgroup] for name in ("query", "d_out"))
        tile = tile_of(self.refs.k_tiles, self.sequence, n) if self.tags is not None else ()
        plgpu.barrier_wait(ring.full.at[slot])
        keys, values, *tags = (buffer.at[slot] for buffer in ring.buffers)
        zeros = full((ROWS, self.tile.columns), 0.0)
        scores, d_weights = add_products(
            friendly,
            Term(zeros, query, keys.transpose((1, 0))),
            Term(self._mass_share(tags, tile), d_out, values.transpose((1, 0))),
        )
        scores = scores * (self.problem.scale * LOG2_E) - over_columns(self.lse, zeros.shape)
        if self.tags is not None:
            scores = self.tags.hide_other_segments(scores, tags[0], tile)
        if diagonal:
            scores = hide_later(scores, self.gap - n * self.tile.columns, query_axis=0)
        d_scores = (jnp.exp2(scores) * d_weights).astype(self.problem.dtype)
        staging = staging_of(self.scratch, warpgroup)
        [d_query] = add_products(friendly, Term(d_query, d_scores, keys, staging))
        plgpu.barrier_arrive(ring.empty.at[slot])
        return d_query

    def _mass_share(self, tags, tile) -> Array:
        """Return g [annotated] - delta: what the gradient of the weights has besides dO . V."""
        shape = (ROWS, self.tile.columns)
        share = over_columns(-self.delta, shape)
        if not self.problem.words:
            return share

        def of_class(share):
            marks = over_rows(load(tags[1], 0), shape)
            return over_columns(self.d_mass, shape) * marks + share

        def of_pairs(annotated, share):
            return share + jnp.where(annotated, over_columns(self.d_mass, shape), 0.0)

        choices = of_class, of_pairs, lambda share: share
        return self.tags.by_annotation(tags[0], tile, self.is_one_class(), *choices, share)
