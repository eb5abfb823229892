"""What attention heads are known to attend to: patterns as edges, scores as the mass on them.

A pattern of a sequence of tokens says for each query which keys it is about, as a mask [T, T]; the
score of a head is the attention on them, averaged over the queries that have any. Sources:

- sink: the first token, of all queries but its own (Xiao et al. 2023, arXiv 2309.17453);
- previous token, duplicate token: the token before the query; earlier occurrences of the query's
  own token (Wang et al. 2022, arXiv 2211.00593);
- induction: the token after an earlier occurrence of the query's own token, so that the head points
  to what came next the last time (Olsson et al. 2022, arXiv 2209.11895, "prefix matching"). It is
  measured on random tokens that are repeated, where nothing else tells what comes next.
"""

from collections.abc import Callable, Mapping

import numpy as np

from cat_jax.errors import InputError
from cat_jax.types import Bool, Float, Int

Edges = Bool[np.ndarray, "T T"]
Pattern = Callable[[Int[np.ndarray, " T"]], Edges]
"""Returns the edges of a sequence, queries by keys, from its token ids."""


def first_token(tokens_T: Int[np.ndarray, " T"]) -> Edges:
    """Return the edges to the first token, of all other queries."""
    edges = np.zeros((len(tokens_T), len(tokens_T)), bool)
    edges[1:, :1] = True
    return edges


def previous_token(tokens_T: Int[np.ndarray, " T"]) -> Edges:
    """Return the edges to the token before each query."""
    return np.eye(len(tokens_T), k=-1, dtype=bool)


def duplicate_token(tokens_T: Int[np.ndarray, " T"]) -> Edges:
    """Return the edges to earlier occurrences of each query's token."""
    tokens_T = np.asarray(tokens_T)
    return np.tril(tokens_T[:, None] == tokens_T[None], -1)


def induction(tokens_T: Int[np.ndarray, " T"]) -> Edges:
    """Return the edges to the tokens after earlier occurrences of each query's token.

    The query itself, after a token that is its own, is none of them.
    """
    after_TT = np.roll(duplicate_token(tokens_T), 1, axis=1)
    after_TT[:, 0] = False  # rolled in from the end
    return np.tril(after_TT, -1)


PATTERNS: Mapping[str, Pattern] = {
    "sink": first_token,
    "previous token": previous_token,
    "duplicate token": duplicate_token,
    "induction": induction,
}


def pattern_score(
    maps: Float[np.ndarray, "*rest T T"],
    edges: Edges,
    queries: Bool[np.ndarray, " T"] | None = None,
) -> Float[np.ndarray, "*rest"]:
    """Return the attention on a pattern's edges, averaged over the queries that have any.

    Args:
        maps: Attention maps, queries by keys.
        edges: Edges of the pattern, [T, T].
        queries: Queries to look at; None looks at all.

    Returns:
        Scores by the other axes of the maps, from 0 to 1; NaN where no query has an edge.

    Raises:
        InputError: Maps and edges differ in shape.
    """
    maps = np.asarray(maps)
    if maps.shape[-2:] != edges.shape:
        raise InputError(f"maps of shape {maps.shape} have no edges of shape {edges.shape}")
    asked = edges.any(-1) if queries is None else edges.any(-1) & queries
    if not asked.any():
        return np.full(maps.shape[:-2], np.nan)
    return np.where(edges, maps, 0.0).sum(-1)[..., asked].mean(-1)
