"""Blocks of 128 queries that loop over key tiles, for the forward and the query gradient."""

import functools
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from pallas_kernels.causal_mass_attention.hopper.operands import Operands, Problem
from pallas_kernels.causal_mass_attention.hopper.parts import opaque, tags_of_rows
from pallas_kernels.causal_mass_attention.hopper.tiles import BLOCK, COMPUTING, ROWS, Tile


def query_blocks(problem: Problem) -> dict[str, int]:
    """Return the axes of the grid, fastest first."""
    return {
        "head": problem.heads,
        "block": problem.queries // BLOCK,
        "sequence": problem.batch,
    }


class QueryBlock:
    """128 queries of one head, of which this warpgroup has the 64 from ``start``.

    The tiles [first, stop) are the same for all three warpgroups.
    """

    def __init__(self, problem: Problem, tile: Tile, refs: Operands, results, scratch):
        self.problem, self.tile, self.refs, self.results = problem, tile, refs, results
        self.scratch = scratch
        self.head, self.sequence = lax.axis_index("head"), lax.axis_index("sequence")
        self.group = lax.div(self.head, jnp.int32(problem.heads // problem.groups))
        self.warpgroup = lax.axis_index("warpgroup")
        # Latest queries first: they see most keys, and none should be left alone at the end.
        self.block = problem.queries // BLOCK - 1 - lax.axis_index("block")
        self.first = jnp.int32(0) if refs.reach is None else refs.reach[self.sequence, self.block]
        self.stop = self._tiles_until(self.block * BLOCK + BLOCK)
        self.plane: Any = None
        if problem.words:  # of one of the two warpgroups, if theirs differ
            self.plane = jnp.maximum(*(self._single_bit(n) for n in range(COMPUTING)))

    def locate_rows(self) -> None:
        """Set where the queries of this computing warpgroup lie."""
        self.start = self.block * BLOCK + self.warpgroup * ROWS
        self.where = pl.ds(self.start, ROWS)
        self.gap = self.problem.offset + self.start

    def load_tags(self) -> None:
        """Set the tags of these queries, None without tags."""
        refs = self.refs
        self.tags: Any = tags_of_rows(
            self.problem, refs.q_tags, refs.q_tiles, self.sequence, self.start
        )
        self.own_plane: Any = self._single_bit(self.warpgroup) if self.problem.words else None

    def queries_of(self, ref):
        """Return these queries of an array."""
        return ref.at[self.sequence, self.where, self.head]

    def keys_of(self, ref, n: Array):
        """Return the n-th tile from the first of an array of keys."""
        return ref.at[self.sequence, self._columns(n), self.group]

    def tags_of_keys(self, n: Array) -> tuple[Any, ...]:
        """Return the tags of the n-th tile from the first, and the plane of the queries' bit."""
        where = self._columns(n)
        tags = self.refs.k_tags.at[self.sequence, :, where] if self.problem.tag_count else None
        plane = None
        if self.problem.words:
            number = jnp.maximum(self.plane, 0)
            plane = self.refs.k_planes.at[self.sequence, number, where]
        return tuple(x for x in (tags, plane) if x is not None)

    def is_one_class(self) -> Array:
        """Return whether the plane is that of all queries of this warpgroup that have bits."""
        own, plane = opaque(self.own_plane, self.plane)
        return (plane >= 0) & (own == plane)

    def _single_bit(self, warpgroup: Array | int) -> Array:
        return self.refs.q_tiles[
            self.sequence, self.block * COMPUTING + warpgroup, self.refs.q_tiles.shape[-1] - 1
        ]

    def walk(self, step, carry, skip):
        """Fold ``step(n, carry, diagonal=...)`` over this warpgroup's tiles; skip the rest."""
        stop = jnp.maximum(self._tiles_until(self.start + ROWS), self.first)
        unmasked = jnp.clip(lax.div(self.gap + 1, self.tile.columns), self.first, stop)
        inside = functools.partial(step, diagonal=False)
        carry = lax.fori_loop(self.first, unmasked, inside, carry)
        carry = lax.fori_loop(unmasked, stop, functools.partial(step, diagonal=True), carry)
        skip(stop - self.first, self.stop - self.first)
        return carry

    def _columns(self, n: Array):
        """Return the positions of the n-th tile from the first."""
        return pl.ds((self.first + n) * self.tile.columns, self.tile.columns)

    def _tiles_until(self, query: Array) -> Array:
        """Return how many key tiles the queries before ``query`` can see."""
        tiles = lax.div(self.problem.offset + query + self.tile.columns - 1, self.tile.columns)
        return jnp.minimum(tiles, self.problem.keys // self.tile.columns)
