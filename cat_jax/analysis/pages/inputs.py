"""Checks of what a page of attention maps is to show."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from cat_jax.analysis.pages.contents import Shape
from cat_jax.errors import InputError

Kind = Literal["cause", "effect", "spurious", "other"]
ROUNDING = 1e-5
"""How far beyond 0 and 1 a softmax in float32 may come."""


def checked_shape(
    maps: Mapping[str, Any],
    tokens: Sequence[str],
    kinds: Sequence[str],
    queries: Sequence[int] | None,
) -> Shape:
    """Return the sizes of the maps.

    Raises:
        InputError: Sizes that do not fit together, or unknown kinds.
    """
    if not 1 <= len(maps) <= 2:
        raise InputError(f"the page shows one model or two, not {len(maps)}; choose among them")
    if not tokens:
        raise InputError("there are no tokens; give the text of at least one")
    if len(kinds) != len(tokens):
        raise InputError(f"there are {len(kinds)} kinds for {len(tokens)} tokens; give one each")
    for place, kind in enumerate(kinds):
        if kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise InputError(f"token {place} is of the kind {kind!r}; known are {known}")
    places = tuple(range(len(tokens))) if queries is None else tuple(map(int, queries))
    if not places or sorted(set(places)) != list(places):
        raise InputError("queries are token positions, ascending, at least one; sort them")
    if places[0] < 0 or places[-1] >= len(tokens):
        raise InputError(f"queries lie between 0 and {len(tokens) - 1}, not at {places}")
    shapes = {name: tuple(np.shape(array)) for name, array in maps.items()}
    for name, sizes in shapes.items():
        if len(sizes) != 4 or sizes[2:] != (len(places), len(tokens)) or not all(sizes):
            raise InputError(
                f"the maps of {name!r} have shape {list(sizes)}; "
                f"[layers, heads, {len(places)} queries, {len(tokens)} keys] is needed"
            )
    if len(set(shapes.values())) > 1:
        found = " and ".join(f"{name!r} {list(sizes)}" for name, sizes in shapes.items())
        raise InputError(f"two models on a page have maps of one shape, not {found}")
    layers, heads = next(iter(shapes.values()))[:2]
    return Shape(layers, heads, places, len(tokens))


def row_indices(shape: Shape, positions: Sequence[int]) -> list[int]:
    """Return the indices of queries at token positions.

    Raises:
        InputError: There is no query at one of them.
    """
    index = {position: row for row, position in enumerate(shape.queries)}
    for position in positions:
        if position not in index:
            raise InputError(f"whole_queries names token {position}, which is no query of the maps")
    return sorted({index[position] for position in positions})


def check_map(map_QK: Any, seen_QK: np.ndarray, where: str) -> np.ndarray:
    """Return a map as float32 between 0 and 1.

    Args:
        map_QK: Attention [Q, K].
        seen_QK: Which keys a query may see.
        where: Names the map, for the message.

    Raises:
        InputError: A value is not finite, not between 0 and 1, or of a later token.
    """
    values_QK = np.asarray(map_QK, np.float32)
    wrong = ~((values_QK >= -ROUNDING) & (values_QK <= 1 + ROUNDING))
    if wrong.any():
        query, key = np.argwhere(wrong)[0]
        raise InputError(
            f"{where}: row {query}, key {key} is {values_QK[query, key]}; "
            "attention lies between 0 and 1: give probabilities"
        )
    if values_QK[~seen_QK].any():
        raise InputError(
            f"{where} has attention to later tokens; the page shows causal attention: "
            "name the token position of each row in queries"
        )
    return np.clip(values_QK, 0, 1)
