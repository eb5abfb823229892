"""Several records in one row, each a segment of its own: less padding, the same numbers."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.errors import InputError


def pack_examples(examples: Sequence[Example], *, length: int, seed: int) -> list[Example]:
    """Fills rows of at most ``length`` tokens with whole records.

    Best-fit decreasing: the longest record first, each into the fullest row that still holds it
    (Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination"). Rows are packed
    once, before any epoch: an epoch then visits each record once, in as many steps as gamma's
    schedule counts. grain's packers work on the stream, where rows mix epochs, their number
    changes, and more of them stays empty.

    Args:
        examples: of single records.
        length: tokens that fit in a row.
        seed: decides which of the records that are equally long share a row.

    Returns:
        Rows whose segments count from 1 and whose positions restart; annotation bits and counts
        are those of the records.

    Raises:
        InputError: a record is longer than a row.
    """
    sizes = np.array([len(example.tokens) for example in examples], int)
    if sizes.max(initial=0) > length:
        raise InputError(f"a record of {sizes.max()} tokens does not fit in a row of {length}")
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    bins = _best_fit(sizes[order].tolist(), length)
    return [_join([examples[order[place]] for place in row]) for row in bins]


def filled(examples: Sequence[Example]) -> float:
    """Share of the tokens that is not padding once the rows are stacked."""
    sizes = [len(example.tokens) for example in examples]
    return sum(sizes) / (len(sizes) * max(sizes))


def _best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Which of the sizes share a row, filled in the order given."""
    rows: list[list[int]] = []
    rows_with: dict[int, list[list[int]]] = defaultdict(list)  # by what is left of them
    lefts: list[int] = []  # the keys that have rows, sorted
    for place, size in enumerate(sizes):
        at = bisect_left(lefts, size)
        if at < len(lefts):
            left = lefts[at]
            row = rows_with[left].pop()
            if not rows_with[left]:
                lefts.pop(at)
        else:
            left, row = length, []
            rows.append(row)
        row.append(place)
        if not rows_with[left - size]:
            insort(lefts, left - size)
        rows_with[left - size].append(row)
    return rows


def _join(records: Sequence[Example]) -> Example:
    """One row of several records."""
    sizes = [len(record.tokens) for record in records]
    words = max(record.q_bits.shape[1] for record in records)

    def bits(name: str) -> np.ndarray:
        arrays = (getattr(record, name) for record in records)
        return np.concatenate([np.pad(x, ((0, 0), (0, words - x.shape[1]))) for x in arrays])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(record, name) for record in records])

    return Example(
        tokens=joined("tokens"),
        target_mask=joined("target_mask"),
        q_bits=bits("q_bits"),
        k_bits=bits("k_bits"),
        causal_count=joined("causal_count"),
        visible_count=joined("visible_count"),
        segment_ids=np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes),
        positions=np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
    )
