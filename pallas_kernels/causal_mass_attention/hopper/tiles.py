"""Tile sizes of the Hopper kernels, and why they fit.

A block is three warpgroups: one copies (TMA), two compute. Each computing warpgroup owns 64
rows (the M of one ``wgmma``) and loops over tiles of columns in a ring of ``stages`` buffers: rows
are queries and columns keys in the forward and the query gradient, and the reverse in the key and
value gradient.

Registers: 65,536 per multiprocessor, so 168 per thread at the start, of which the copying
warpgroup keeps 24 and the computing ones take 240. A [64, n] float32 array takes n / 2 of them,
a 16-bit one n / 4:

    forward          out C/2 + scores n/2 + 16-bit weights n/4, e.g. 64 + 64 + 32 = 160 at C = 128
    query gradient   dQ C/2 + weights n/2 + their gradient n/2 + 16-bit n/4
    key gradient     dK C/2 + dV C/2 + weights n/2 + their gradient n/2 + two 16-bit n/4
                     (C = 256 would need 256 for dK and dV alone: two passes, one for each)

Shared memory: 232,448 bytes per block, at 2 bytes per value, and some for tags and statistics:

    forward          128 rows of Q and stages * n rows of K and V
    query gradient   128 rows of Q and dO and stages * n rows of K and V
    key gradient     128 rows of K and V and stages * n rows of Q and dO

As compiled by ptxas 13.0 for one word of bits and, after the bar, for two words and segments: most
live registers at once (none is spilled), and KiB of shared memory:

    C     forward            query gradient     key gradient
    64    176 | 178, 151     218 | 224, 132     167 | 178, 100
    128   208 | 212, 165     166 | 192, 162     217 | 223, 164
    256   214 | 222, 197     191 | 202, 194     188 | 193 (dK), 168 | 173 (dV), 194
"""

from typing import NamedTuple

ROWS = 64
COMPUTING = 2
BLOCK = COMPUTING * ROWS
COMPUTING_REGISTERS = 240
COPYING_REGISTERS = 24
MULTIPROCESSORS = 132  # of an H100 or H200


class Tile(NamedTuple):
    """Positions per step (32 or a multiple of 64), and buffers of the ring that holds them."""

    columns: int
    stages: int

    @property
    def width(self) -> int:
        """Values per row of a tile in shared memory: 64 fill the widest swizzle, 32 the next."""
        return min(self.columns, 64)


class TileSizes(NamedTuple):
    """Tiles of the three kernels.

    Attributes:
        forward: Tile of the forward.
        query_gradient: Tile of the query gradient.
        key_gradient: Tile of the key and value gradient.
        separate: Whether dK and dV are computed in two passes.
        interpret_friendly: Whether to use only what JAX's GPU interpreter can run: the left operand
            of every product goes through shared memory, and no accumulator outlives a product.
    """

    forward: Tile
    query_gradient: Tile
    key_gradient: Tile
    separate: bool = False
    interpret_friendly: bool = False


SIZES = {
    64: TileSizes(Tile(128, 4), Tile(128, 3), Tile(64, 4)),
    128: TileSizes(Tile(128, 2), Tile(64, 3), Tile(64, 3)),
    256: TileSizes(Tile(64, 2), Tile(32, 2), Tile(32, 2), separate=True),
}
"""Tile sizes by padded head size."""


def padded_size(size: int) -> int:
    """Return the head size that the kernels compute with."""
    return min(padded for padded in SIZES if padded >= size)
