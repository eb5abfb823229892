"""Token masks as bitsets: M[i, j] = any_w(q_bits[i, w] & k_bits[j, w]) != 0 and j <= i.

A mask is a union of rectangles (rows of an effect x columns of its causes). Rows of the same
effects make a class, and each class has one bit: a query then has one bit at most, so that no pair
of positions shares two. Source: CAT (Han et al., EMNLP 2025).
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

WORD = 32
Rectangle = tuple[Sequence[int], Sequence[int]]
"""Rows and columns of a mask, in any order."""


def encode_rectangles(
    masks: Sequence[Sequence[Rectangle]], lengths: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Encode unions of rectangles; rows that see the same columns share their one bit.

    All masks are encoded at once, into slices of the same arrays.

    Args:
        masks: Rows and columns of each effect of each mask, all below its length; they may
            overlap.
        lengths: T of each mask, the number of positions.

    Returns:
        For each mask q_bits_TW and k_bits_TW, uint32, where a query has one bit at most and W is 1
        up to 32 classes and grows as needed, and causal_count_T, int32, as ``mask_counts`` counts
        it.
    """
    classes = [_classes(effects) for effects in masks]
    counts = np.zeros(sum(lengths), np.int32)
    starts = list(accumulate(lengths, initial=0))
    rows, seen = [], []
    for start, of_one in zip(starts, classes, strict=False):
        for class_rows, columns in of_one:
            rows += [start + row for row in class_rows]
            seen += [bisect_right(columns, row) for row in class_rows]
    counts[rows] = seen
    bits = _assign_bits(classes, lengths)
    return [(*bits[n], counts[starts[n] : starts[n + 1]]) for n in range(len(classes))]


def _classes(effects: Sequence[Rectangle]) -> list[Rectangle]:
    """Return disjoint rows, each with the union of the columns of their effects, both sorted."""
    effects_of: dict[int, tuple[int, ...]] = {}
    for number, (rows, _) in enumerate(effects):
        for row in set(rows):
            effects_of[row] = (*effects_of.get(row, ()), number)
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, numbers in effects_of.items():
        rows_of.setdefault(numbers, []).append(row)
    classes: dict[tuple[int, ...], list[int]] = {}
    for numbers, rows in rows_of.items():
        # Columns above the diagonal are dropped: they would cost a bit where nothing else is left,
        # and keep apart rows that see the same.
        last = max(rows)
        columns = tuple(sorted({j for n in numbers for j in effects[n][1] if j <= last}))
        if columns:
            classes.setdefault(columns, []).extend(rows)
    return [(sorted(rows), columns) for columns, rows in classes.items()]


def encode_mask(mask_TT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Encode any mask, exactly below the diagonal, in greedily few bits and one a row.

    Two rows i < i' share their bit if M[i, :i+1] equals M[i', :i+1].

    Args:
        mask_TT: Mask, bool; entries above the diagonal are ignored.

    Returns:
        q_bits_TW, k_bits_TW: uint32.
    """
    groups: list[tuple[list[int], np.ndarray]] = []
    for row in reversed(range(len(mask_TT))):  # the first row of a group sees most columns
        seen = mask_TT[row, : row + 1]
        if not seen.any():
            continue
        for rows, leader in groups:
            if np.array_equal(seen, leader[: row + 1]):
                rows.append(row)
                break
        else:
            groups.append(([row], seen))
    rectangles = [(rows, np.flatnonzero(seen).tolist()) for rows, seen in groups]
    return _assign_bits([rectangles], [len(mask_TT)])[0]


def decode(q_bits_TW: np.ndarray, k_bits_TW: np.ndarray) -> np.ndarray:
    """Return the mask, bool [T, T], False above the diagonal."""
    mask_TT = np.zeros((len(q_bits_TW), len(k_bits_TW)), bool)
    for q_bits_T, k_bits_T in zip(q_bits_TW.T, k_bits_TW.T, strict=True):
        mask_TT |= (q_bits_T[:, None] & k_bits_T[None, :]) != 0
    return np.tril(mask_TT)


def mask_counts(
    q_bits_TW: np.ndarray, k_bits_TW: np.ndarray, segment_ids: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Count the annotated keys and all keys that each row of the mask sees.

    No [T, T] array is built: the count of a row is a cumulative sum over the keys that share a bit
    with it, and rows of equal ``q_bits`` share that sum.

    Args:
        q_bits_TW: Bits of queries, uint32.
        k_bits_TW: Bits of keys, uint32.
        segment_ids: [T] integers; positions of one segment stand together and see only each other.

    Returns:
        causal_count_T: |C(i)|, int32.
        visible_count_T: i + 1, or the same counted from the start of the segment, int32.
    """
    positions_T = np.arange(len(q_bits_TW), dtype=np.int32)
    starts_T = np.zeros_like(positions_T)
    if segment_ids is not None:
        new_T = np.diff(segment_ids, prepend=segment_ids[:1] - 1) != 0
        starts_T = np.maximum.accumulate(np.where(new_T, positions_T, 0))
    rows_of: dict[tuple[int, ...], list[int]] = {}
    rows = np.flatnonzero(q_bits_TW.any(axis=1))
    for row, bits in zip(rows.tolist(), q_bits_TW[rows].tolist(), strict=True):
        rows_of.setdefault(tuple(bits), []).append(row)
    causal_count_T = np.zeros_like(positions_T)
    for bits, same in rows_of.items():
        hits_T = (k_bits_TW & np.array(bits, np.uint32)).any(axis=1)
        below_T = np.concatenate(([0], np.cumsum(hits_T)))
        causal_count_T[same] = below_T[np.array(same) + 1] - below_T[starts_T[same]]
    return causal_count_T, positions_T - starts_T + 1


def _assign_bits(
    masks: Sequence[Sequence[Rectangle]], lengths: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Set bit n % 32 of word n // 32 at the rows and columns of group n of each mask."""
    widths = [max(1, -(-len(groups) // WORD)) for groups in masks]
    shapes = list(zip(lengths, widths, strict=True))
    starts = list(accumulate((length * width for length, width in shapes), initial=0))
    sides = []
    for side in (0, 1):  # rows, columns
        places, values = [], []
        for start, width, groups in zip(starts, widths, masks, strict=False):
            for number, group in enumerate(groups):
                word, bit = divmod(number, WORD)
                places += [start + word + position * width for position in group[side]]
                values += [1 << bit] * len(group[side])
        flat = np.zeros(starts[-1], np.uint32)
        np.bitwise_or.at(flat, np.array(places, np.intp), np.array(values, np.uint32))
        sides.append(
            [flat[s:e].reshape(x) for s, e, x in zip(starts, starts[1:], shapes, strict=False)]
        )
    return list(zip(*sides, strict=True))
