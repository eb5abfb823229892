"""Forward for Hopper: FlashAttention 3 (Shah et al., 2024) that also sums the annotated mass.

A block is 128 queries of one head. Its two computing warpgroups take turns: while one runs its
softmax, the other has the tensor cores (the barrier ``turn``). Key tiles up to the diagonal are
computed; only the last ones are masked, and only tiles that may hold an annotated pair add to the
mass.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.causal_mass_attention.hopper.operands import LOG2_E, Operands, Problem
from pallas_kernels.causal_mass_attention.hopper.parts import (
    LOWEST,
    WGMMA,
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
    product,
    ring,
    staging_buffer,
    staging_of,
    tags_buffer,
    tile_of,
)
from pallas_kernels.causal_mass_attention.hopper.queries import QueryBlock, query_blocks
from pallas_kernels.causal_mass_attention.hopper.tiles import COMPUTING, ROWS, Tile


class Results(NamedTuple):
    """Out [B, Q, H, C]; natural log-sum-exp and, with bits, mass, float32 [B, H, Q]."""

    out: Any
    lse: Any
    mass: Any


class _Sums(NamedTuple):
    """Running softmax, in base 2."""

    out: Array
    maximum: Array
    denominator: Array
    mass: Array | None


def forward(problem: Problem, tile: Tile, operands: Operands) -> Results:
    """Return out, log-sum-exp and mass."""
    statistic = jax.ShapeDtypeStruct((problem.batch, problem.heads, problem.queries), jnp.float32)
    shapes = Results(
        jax.ShapeDtypeStruct(operands.query.shape, problem.dtype),
        statistic,
        statistic if problem.words else None,
    )
    keys = matrix(tile.columns, problem.size, problem.dtype, tile.width)
    tags = (*tags_buffer(problem, tile.columns), *plane_buffer(problem, tile.columns))
    scratch = {
        "query": matrix(ROWS, problem.size, problem.dtype, tile.width)(COMPUTING),
        "query_ready": plgpu.Barrier(num_barriers=COMPUTING),
        "statistics": plgpu.SMEM((COMPUTING, 2, ROWS), jnp.float32),
        "turn": plgpu.Barrier(num_arrivals=COMPUTING),
        "key_ring": ring(tile.stages, keys),
        "value_ring": ring(tile.stages, keys),
        "position_tags_ring": ring(tile.stages, *tags) if tags else None,
        "staging": staging_buffer(problem, tile),
    }
    name, blocks = "causal_mass_forward", query_blocks(problem)
    return kernel(name, ForwardBlock, problem, tile, operands, shapes, scratch, blocks)


class ForwardBlock(QueryBlock):
    """Attention of 128 queries of one head."""

    def copy(self) -> None:
        """Stream key tiles, value tiles and tags, each in a ring of its own."""
        streams = [
            (self.scratch["key_ring"], lambda n: (self.keys_of(self.refs.key, n),)),
            (self.scratch["value_ring"], lambda n: (self.keys_of(self.refs.value, n),)),
        ]
        if self.scratch["position_tags_ring"] is not None:
            streams.append((self.scratch["position_tags_ring"], self.tags_of_keys))
        produce(self.stop - self.first, self.tile.stages, *streams)

    def take_turn(self) -> None:
        """Wait for the other computing warpgroup to hand over the tensor cores."""
        plgpu.barrier_arrive(self.scratch["turn"])
        plgpu.barrier_wait(self.scratch["turn"])

    def compute(self) -> None:
        """Run the online softmax over the keys that these 64 queries see."""
        self.locate_rows()
        self.query = self.scratch["query"].at[self.warpgroup]
        ready = self.scratch["query_ready"].at[self.warpgroup]
        plgpu.copy_gmem_to_smem(self.queries_of(self.refs.query), self.query, ready)
        self.load_tags()
        plgpu.barrier_wait(ready)
        pl.when(self.warpgroup == 1)(self.take_turn)
        nothing = full((ROWS,), 0.0, WGMMA.reduce(1))
        sums = _Sums(
            full((ROWS, self.problem.size), 0.0),
            full((ROWS,), LOWEST, WGMMA.reduce(1)),
            nothing,
            nothing if self.problem.words else None,
        )
        self._store(self.walk(self._absorb, sums, self._skip))

    def _skip(self, start: Array, stop: Array) -> None:
        def both_turns():
            self.take_turn()
            self.take_turn()

        rings = [self.scratch[name] for name in ("key_ring", "value_ring", "position_tags_ring")]
        rings = [each for each in rings if each is not None]
        drain(start, stop, self.tile.stages, *rings, also=both_turns)
        pl.when(self.warpgroup == 0)(self.take_turn)

    def _absorb(self, n: Array, sums: _Sums, *, diagonal: bool) -> _Sums:
        """Add one key tile to the running softmax."""
        scratch = self.scratch
        slot = lax.rem(n - self.first, jnp.int32(self.tile.stages))
        warpgroup, slot = opaque(self.warpgroup, slot)
        tile = tile_of(self.refs.k_tiles, self.sequence, n) if self.tags is not None else ()
        scores, factor = self._scores(slot, scratch["query"].at[warpgroup], tile)
        if diagonal:
            scores = hide_later(scores, self.gap - n * self.tile.columns, query_axis=0)
        maximum = jnp.maximum(sums.maximum, scores.max(axis=1) * factor)
        decay = jnp.exp2(sums.maximum - maximum)
        weights = jnp.exp2(scores * factor - over_columns(maximum, scores.shape))
        out = sums.out * over_columns(decay, sums.out.shape)
        denominator = sums.denominator * decay + weights.sum(axis=1)
        mass = sums.mass
        if mass is not None:
            mass = mass * decay + self._annotated_sum(slot, tile, weights)
        if self.tags is not None:
            plgpu.barrier_arrive(scratch["position_tags_ring"].empty.at[slot])
        plgpu.barrier_arrive(scratch["turn"])
        plgpu.barrier_wait(scratch["value_ring"].full.at[slot])
        plgpu.barrier_wait(scratch["turn"])
        values = scratch["value_ring"].buffers[0].at[slot]
        staging = staging_of(scratch, warpgroup)
        term = Term(out, weights.astype(self.problem.dtype), values, staging)
        [out] = add_products(self.problem.interpret_friendly, term)
        plgpu.barrier_arrive(scratch["value_ring"].empty.at[slot])
        return _Sums(out, maximum, denominator, mass)

    def _scores(self, slot: Array, query, tile) -> tuple[Array, float]:
        """Return the scores of one tile, and the positive factor that they lack."""
        keys = self.scratch["key_ring"]
        plgpu.barrier_wait(keys.full.at[slot])
        scores = product(query, keys.buffers[0].at[slot], self.take_turn)
        plgpu.barrier_arrive(keys.empty.at[slot])
        factor = self.problem.scale * LOG2_E
        if factor <= 0:  # the maximum is taken before the factor, so it must keep the order
            scores, factor = scores * factor, 1.0
        if self.tags is not None:
            tags = self.scratch["position_tags_ring"]
            plgpu.barrier_wait(tags.full.at[slot])
            scores = self.tags.hide_other_segments(scores, tags.buffers[0].at[slot], tile)
        return scores, factor

    def _annotated_sum(self, slot: Array, tile, weights: Array) -> Array:
        tags, plane = (x.at[slot] for x in self.scratch["position_tags_ring"].buffers)

        def of_class(weights):
            return (weights * over_rows(load(plane, 0), weights.shape)).sum(axis=1)

        return self.tags.by_annotation(
            tags,
            tile,
            self.is_one_class(),
            of_class,
            lambda annotated, weights: jnp.where(annotated, weights, 0.0).sum(axis=1),
            lambda _: full((ROWS,), 0.0, WGMMA.reduce(1)),
            weights,
        )

    def _store(self, sums: _Sums) -> None:
        results, statistics = self.results, self.scratch["statistics"].at[self.warpgroup]
        total = jnp.where(sums.denominator > 0, sums.denominator, 1.0)
        inverse = 1.0 / total
        out = sums.out * over_columns(inverse, sums.out.shape)
        self.query[...] = out.astype(self.problem.dtype)
        statistics[0] = sums.maximum * (1 / LOG2_E) + jnp.log(total)
        if sums.mass is not None:
            statistics[1] = sums.mass * inverse
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(self.query, self.queries_of(results.out))
        where = (self.sequence, self.head, self.where)
        plgpu.copy_smem_to_gmem(statistics.at[0], results.lse.at[where])
        if sums.mass is not None:
            plgpu.copy_smem_to_gmem(statistics.at[1], results.mass.at[where])
        plgpu.wait_smem_to_gmem(0)
