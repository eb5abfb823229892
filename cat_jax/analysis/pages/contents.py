"""What a page of attention maps holds whole within a budget, and what pooled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cat_jax.analysis.pages.codes import text_bytes
from cat_jax.errors import InputError
from cat_jax.ranges import Index, check_number

POOLED = 64
"""Blocks along a side of a pooled map, at most."""

Head = tuple[int | Literal["mean"], int | Literal["mean"]]
"""Layer and head, or the mean over them."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the maps of a model.

    A *cell* is the index of a map: layer * (heads + 1) + head, where the layer after the last one
    is the mean over layers, and the head after the last one the mean over heads.

    Attributes:
        layers: Layers, N.
        heads: Heads of a layer, H.
        queries: Token position of each query, ascending.
        keys: Tokens, T.
    """

    layers: int
    heads: int
    queries: tuple[int, ...]
    keys: int

    @property
    def cells(self) -> int:
        """Return the number of maps, means included."""
        return (self.layers + 1) * (self.heads + 1)

    @property
    def bins(self) -> tuple[int, int]:
        """Return the blocks of queries and of keys of a pooled map."""
        return min(len(self.queries), POOLED), min(self.keys, POOLED)

    @property
    def pooled_bytes(self) -> int:
        """Return the bytes of all pooled maps."""
        rows, columns = self.bins
        return self.cells * text_bytes(rows * columns)

    def row_bytes(self, rows: Sequence[int]) -> int:
        """Return the bytes of rows of one map; a query sees no later tokens."""
        return text_bytes(sum(self.queries[row] + 1 for row in rows))

    @property
    def map_bytes(self) -> int:
        """Return the bytes of one whole map."""
        return self.row_bytes(range(len(self.queries)))

    def cell(self, head: Head) -> int:
        """Return the index of a map.

        Raises:
            InputError: There is no such layer or head.
        """
        if not isinstance(head, tuple | list) or len(head) != 2:
            raise InputError(f"whole_heads names pairs of layer and head, such as (3, 2): {head!r}")
        ends = self.layers, self.heads
        given = [end if one == "mean" else one for one, end in zip(head, ends, strict=True)]
        for name, one, end in zip(("layer", "head"), given, ends, strict=True):
            check_number(f"a {name} of whole_heads", one, Index)
            if not 0 <= one <= end or (one == end and head[name == "head"] != "mean"):
                raise InputError(
                    f"whole_heads names {name} {one}; there are 0 to {end - 1}, and 'mean'"
                )
        return given[0] * (self.heads + 1) + given[1]


@dataclass(frozen=True)
class Contents:
    """What is whole.

    Attributes:
        maps: Cells whose maps are whole, ascending.
        rows: Indices of queries whose rows are whole in every map; none if all maps are.
        bytes: Size of it all and of the pooled maps, of one model.
    """

    maps: tuple[int, ...]
    rows: tuple[int, ...]
    bytes: int


def choose(
    shape: Shape,
    limit: int,
    heads: Sequence[Head],
    rows: Sequence[int] | None,
    likely_rows: Sequence[int],
) -> Contents:
    """Return what is whole: everything if it fits, or else what is asked for, then the means.

    Args:
        shape: Sizes.
        limit: Bytes of a model's values.
        heads: Maps that must be whole.
        rows: Indices of queries whose rows must be whole in every map; None for likely ones.
        likely_rows: Queries to look at first; the last of them take a quarter of what is left.

    Raises:
        InputError: What is asked for takes more than the limit.
    """
    asked = list(dict.fromkeys(shape.cell(head) for head in heads))
    if shape.pooled_bytes + shape.cells * shape.map_bytes <= limit:
        return Contents(
            tuple(range(shape.cells)), (), shape.pooled_bytes + shape.cells * shape.map_bytes
        )
    if rows is None:
        left = limit - shape.pooled_bytes - len(asked) * shape.map_bytes
        fitting = left // 4 // (shape.cells * text_bytes(shape.keys))
        rows = likely_rows[-max(1, fitting) :]
    used = shape.pooled_bytes + shape.cells * shape.row_bytes(rows)
    count = (limit - used) // shape.map_bytes
    if count < len(asked):
        need = used + len(asked) * shape.map_bytes
        raise InputError(
            f"limit_bytes is {limit:,}, but {len(asked)} whole heads of {shape.map_bytes:,} bytes, "
            f"{len(rows)} queries whole in every head and the pooled maps take {need:,}; "
            "choose fewer, or allow more"
        )
    maps = list(dict.fromkeys([*asked, *_means(shape), *range(shape.cells)]))[:count]
    return Contents(tuple(sorted(maps)), tuple(rows), used + len(maps) * shape.map_bytes)


def _means(shape: Shape) -> list[int]:
    """Return the mean of all maps, the means of each layer and those of each head number."""
    return [
        shape.cell(("mean", "mean")),
        *(shape.cell((layer, "mean")) for layer in range(shape.layers)),
        *(shape.cell(("mean", head)) for head in range(shape.heads)),
    ]
