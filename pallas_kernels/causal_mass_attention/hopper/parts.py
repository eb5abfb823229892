"""Parts of the Hopper kernels: rings of buffers, products and masks.

Inside a kernel an array [64, n] is one tile: rows of this warpgroup against a tile of columns.
``Layout.WGMMA.reduce(1)`` is the layout of one value per row, ``reduce(0)`` of one per column.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.experimental.pallas.mosaic_gpu import WGMMAAccumulatorRef as Accumulator

from pallas_kernels.causal_mass_attention.hopper.operands import Operands, Problem
from pallas_kernels.causal_mass_attention.hopper.tiles import (
    COMPUTING,
    COMPUTING_REGISTERS,
    COPYING_REGISTERS,
    ROWS,
    Tile,
)

WGMMA: Any = plgpu.Layout.WGMMA
TAGS_IN_REGISTERS = 3
LOWEST = -1.5e38  # finite, also after a score of the same size is subtracted


class Ring(NamedTuple):
    """Buffers in shared memory, [stages, ...] each, filled and emptied in turn."""

    buffers: tuple[Any, ...]
    full: Any
    empty: Any


def ring(stages: int, *buffers) -> Ring:
    """Return scratch types of a ring; ``buffers`` are functions of the number of stages."""
    return Ring(
        tuple(buffer(stages) for buffer in buffers),
        plgpu.Barrier(num_arrivals=len(buffers), num_barriers=stages),
        plgpu.Barrier(num_arrivals=COMPUTING, num_barriers=stages),
    )


def matrix(rows: int, size: int, dtype, width: int) -> Callable[[int], Any]:
    """Return a function to the type of [lead, rows, size] in the layout that wgmma reads."""
    tiling: Any = plgpu.TilingTransform
    swizzle: Any = plgpu.SwizzleTransform
    transforms = (tiling((8, width)), swizzle(2 * width))
    return lambda lead: plgpu.SMEM((lead, rows, size), dtype, transforms=transforms)


def produce(count: Array, stages: int, *streams: tuple[Ring, Callable]) -> None:
    """Fill every ring ``count`` times; ``source(step)`` returns the refs to copy to its buffers."""

    def fill(step, _):
        slot = lax.rem(step, jnp.int32(stages))
        for target, source in streams:

            @pl.when(step >= stages)
            def _(target=target):
                plgpu.barrier_wait(target.empty.at[slot])

            for origin, buffer in zip(source(step), target.buffers, strict=True):
                plgpu.copy_gmem_to_smem(origin, buffer.at[slot], target.full.at[slot])

    def finish(step, _):
        slot = lax.rem(step, jnp.int32(stages))
        for target, _ in streams:
            plgpu.barrier_wait(target.empty.at[slot])

    lax.fori_loop(0, count, fill, None)
    # A barrier must be waited on in every phase.
    lax.fori_loop(jnp.maximum(count - stages, 0), count, finish, None)


def tags_buffer(problem: Problem, columns: int) -> tuple[Callable[[int], Any], ...]:
    """Return the buffer for the tags of a tile of columns; empty without tags."""
    if not problem.tag_count:
        return ()
    return (lambda lead: plgpu.SMEM((lead, problem.tag_count, columns), jnp.int32),)


def plane_buffer(problem: Problem, columns: int) -> tuple[Callable[[int], Any], ...]:
    """Return the buffer for one bit of a tile of keys, as floats; empty without bits."""
    if not problem.words:
        return ()
    return (lambda lead: plgpu.SMEM((lead, columns), jnp.float32),)


def staging_buffer(problem: Problem, tile: Tile) -> Any:
    """Return the buffer for left operands of the interpreter's products; None on the hardware."""
    if not problem.interpret_friendly:
        return None
    return matrix(ROWS, tile.columns, problem.dtype, tile.width)(COMPUTING)


def staging_of(scratch, warpgroup: Array) -> Any:
    """Return this warpgroup's part of the staging buffer; None on the hardware."""
    return None if scratch["staging"] is None else scratch["staging"].at[warpgroup]


def drain(start: Array, stop: Array, stages: int, *rings: Ring, also=lambda: None) -> None:
    """Release the buffers of steps that only the other warpgroup computes."""

    def skip(step, _):
        slot = lax.rem(step, jnp.int32(stages))
        for source in rings:
            plgpu.barrier_wait(source.full.at[slot])
            plgpu.barrier_arrive(source.empty.at[slot])
        also()

    lax.fori_loop(start, stop, skip, None)


def opaque(*values: Array) -> tuple[Array, ...]:
    """Return the same values, opaque to the compiler, so that it keeps nothing derived from them.

    Addresses and bounds that are constant over a loop would else stay in registers, for which the
    accumulators leave no room.
    """
    return lax.optimization_barrier(values)


def full(shape: tuple[int, ...], value: float, layout: Any = WGMMA) -> Array:
    """Return a float32 array in registers."""
    return plgpu.layout_cast(jnp.full(shape, value, jnp.float32), layout)


def load(ref, axis: int) -> Array:
    """Load one value per row (axis 1) or per column (axis 0) of a tile."""
    layout = WGMMA.reduce(axis)
    return plgpu.load(ref, layout=layout, optimized=False)  # pyright: ignore[reportCallIssue]


def over_columns(x: Array, shape) -> Array:
    """Repeat one value per row in every column."""
    return lax.broadcast_in_dim(x, shape, [0])


def over_rows(x: Array, shape) -> Array:
    """Repeat one value per column in every row."""
    return lax.broadcast_in_dim(x, shape, [1])


def product(left_ref, right_ref, meanwhile=lambda: None) -> Array:
    """Compute left @ right.T in float32; ``meanwhile`` runs once the product is under way."""

    def issue(accumulator):
        plgpu.wgmma(accumulator, left_ref, right_ref.transpose((1, 0)))
        meanwhile()
        return accumulator[...]

    shape = (left_ref.shape[0], right_ref.shape[0])
    return pl.run_scoped(issue, Accumulator(shape, jnp.float32))


class Term(NamedTuple):
    """Operands of total + left @ right.

    Attributes:
        total: float32 in registers.
        left: 16-bit, in registers or shared memory.
        right: 16-bit, in shared memory.
        staging: Shared memory for a left in registers; None on the hardware.
    """

    total: Array
    left: Any
    right: Any
    staging: Any = None


def add_products(interpret_friendly: bool, *terms: Term) -> Any:
    """Return the totals of all terms, issued to the tensor cores together."""

    def issue(accumulators):
        for accumulator, term in zip(accumulators, terms, strict=True):
            plgpu.wgmma(accumulator, term.left, term.right)

    if not interpret_friendly:
        return pl.run_state(issue)([Accumulator.init(term.total) for term in terms])
    return [_add_product(term) for term in terms]


def _add_product(term: Term) -> Array:
    """Return the total of one term, in the way that the interpreter can run."""
    left = term.left
    if term.staging is not None:
        term.staging[...] = left
        plgpu.commit_smem()
        left = term.staging

    def issue(accumulator):
        plgpu.wgmma(accumulator, left, term.right)
        return accumulator[...]

    shape = (term.total.shape[0], term.total.shape[1])
    return term.total + pl.run_scoped(issue, Accumulator(shape, jnp.float32))


def hide_later(x: Array, gap: Array, query_axis: int) -> Array:
    """Set to -inf where the key is later than the query: key > query + gap, both in the tile."""
    rows = plgpu.broadcasted_iota(jnp.int32, x.shape[:1], 0, layout=WGMMA.reduce(1))
    columns = plgpu.broadcasted_iota(jnp.int32, x.shape[1:], 0, layout=WGMMA.reduce(0))
    [rows] = opaque(rows)
    rows = over_columns(rows, x.shape)
    columns = over_rows(columns, x.shape)
    visible = rows + gap >= columns if query_axis == 0 else columns + gap >= rows
    return jnp.where(visible, x, -jnp.inf)


class Tags(NamedTuple):
    """Tags of this warpgroup's rows, to compare with those of a tile of columns (in SMEM)."""

    problem: Problem
    rows: Callable[[int], Array]
    row_tile: Callable[[], tuple[Array, ...]]

    def hide_other_segments(self, x: Array, columns_ref, column_tile) -> Array:
        """Set to -inf across segments; nothing is compared if the tile has a single segment."""
        if not self.problem.segments:
            return x
        (least, most), (row_least, row_most) = column_tile[:2], self.row_tile()[:2]
        single = (row_least == most) & (row_most == least)

        def compare(x):
            columns = over_rows(load(columns_ref.at[0], 0), x.shape)
            return jnp.where(over_columns(self.rows(0), x.shape) == columns, x, -jnp.inf)

        return lax.cond(single, lambda x: x, compare, x)

    def by_annotation(
        self, columns_ref, column_tile, is_one_class, of_class, of_pairs, nothing, *operands
    ):
        """Run the function that does least for a tile, on ``operands``.

        is_one_class: Whether the bits of all queries of the tile together are a single one, and
          ``of_class`` may treat queries without bits like the others.
        of_pairs: Its first argument says which pairs share a bit.
        nothing: If no pair of the tile does.
        """
        unions = zip(self._words(self.row_tile()), self._words(column_tile), strict=True)
        touched = _or(row & column for row, column in unions) != 0

        def compare(*operands):
            shape = (ROWS, columns_ref.shape[1])
            common = _or(
                over_columns(self.rows(n), shape) & over_rows(load(columns_ref.at[n], 0), shape)
                for n in range(self.problem.segments, self.problem.tag_count)
            )
            return of_pairs(common != 0, *operands)

        def some(*operands):
            return lax.cond(is_one_class, of_class, compare, *operands)

        return lax.cond(touched, some, nothing, *operands)

    def marks_of_rows(self, column_tile) -> Array:
        """Return 1.0 for rows that have a bit of the tile of columns, else 0.0."""
        words = self._words(column_tile)
        first = self.problem.segments
        common = _or(self.rows(first + n) & word for n, word in enumerate(words))
        return (common != 0).astype(jnp.float32)

    def _words(self, tile: tuple[Array, ...]) -> tuple[Array, ...]:
        first = 2 * self.problem.segments
        return tile[first : first + self.problem.words]


def _or(words: Iterable[Array]) -> Array:
    return functools.reduce(operator.or_, words)


def tags_of_rows(
    problem: Problem, tags_ref, tiles_ref, sequence: Array, start: Array
) -> Tags | None:
    """Return the tags of the rows from ``start``; few stay in registers, many are loaded on use."""
    if not problem.tag_count:
        return None

    def rows(n: int) -> Array:
        return load(tags_ref.at[sequence, n, pl.ds(start, ROWS)], 1)

    def row_tile() -> tuple[Array, ...]:
        return tile_of(tiles_ref, sequence, lax.div(start, ROWS))

    if problem.tag_count > TAGS_IN_REGISTERS:
        return Tags(problem, rows, row_tile)
    loaded, entries = [rows(n) for n in range(problem.tag_count)], row_tile()
    return Tags(problem, loaded.__getitem__, lambda: entries)


def tile_of(ref, *index) -> tuple[Array, ...]:
    """Return the entries of one tile, as scalars."""
    return tuple(ref[*index, entry] for entry in range(ref.shape[-1]))


def kernel(
    name: str, work, problem: Problem, tile: Tile, operands: Operands, out_type, scratch, blocks
):
    """Run ``compute()`` of a ``work`` on two warpgroups and its ``copy()`` on a third.

    ``blocks`` names the axes of the grid, fastest first, with their lengths.
    """
    inputs, treedef = jax.tree.flatten(operands)
    outputs, out_treedef = jax.tree.flatten(out_type)

    def body(*refs, **scratch_refs):
        operand_refs = treedef.unflatten(refs[: len(inputs)])
        results = out_treedef.unflatten(refs[len(inputs) :])
        block = work(problem, tile, operand_refs, results, scratch_refs)
        warpgroup = lax.axis_index("warpgroup")

        @pl.when(warpgroup < COMPUTING)
        def _():
            plgpu.set_max_registers(COMPUTING_REGISTERS, action="increase")
            block.compute()

        @pl.when(warpgroup == COMPUTING)
        def _():
            plgpu.set_max_registers(COPYING_REGISTERS, action="decrease")
            block.copy()

    body.__name__ = name
    flat = plgpu.kernel(
        body,
        out_type=outputs,
        scratch_types=scratch,
        grid=tuple(blocks.values()),
        grid_names=tuple(blocks),
        num_threads=COMPUTING + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(approx_math=True),
    )(*inputs)
    return out_treedef.unflatten(flat)
