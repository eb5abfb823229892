"""Out, mass and query gradient in float64, for a few queries of a sequence of any length."""

from typing import NamedTuple

import numpy as np

from pallas_kernels.benchmark.shapes import Case

ROWS = 24


class Rows(NamedTuple):
    """Results of R queries of one head: out [R, C], mass [R], d_query [R, C]."""

    out: np.ndarray
    mass: np.ndarray
    d_query: np.ndarray


def sample_rows(length: int) -> np.ndarray:
    """Return R positions: the first, the last and some between."""
    return np.unique(np.linspace(0, length - 1, ROWS).astype(int))


def exact_rows(case: Case, head: int, rows: np.ndarray) -> Rows:
    """Compute the softmax row by row in float64, from the numbers in ``case``."""
    group = head // (case.query.shape[2] // case.key.shape[2])
    size = case.query.shape[-1]
    key, value = (x[0, :, group].astype(np.float64) for x in (case.key, case.value))
    results = []
    for row in rows:
        ids = case.segment_ids
        start = 0 if ids is None else int(np.searchsorted(ids[0], ids[0, row]))
        seen = slice(start, row + 1)
        scores = key[seen] @ case.query[0, row, head].astype(np.float64) * size**-0.5
        probs = np.exp(scores - scores.max())
        probs /= probs.sum()
        hit = ((case.q_bits[0, row] & case.k_bits[0, seen]) != 0).any(-1)
        d_probs = value[seen] @ case.d_out[0, row, head].astype(np.float64)
        d_probs = d_probs + case.d_mass[0, head, row] * hit
        d_scores = probs * (d_probs - probs @ d_probs)
        results.append((probs @ value[seen], probs @ hit, d_scores @ key[seen] * size**-0.5))
    return Rows(*(np.array(column) for column in zip(*results, strict=True)))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square of the difference over that of the expected numbers."""
    difference = np.asarray(actual).astype(np.float64) - expected
    return float(np.sqrt(np.mean(difference**2) / np.mean(expected**2)))
