"""Packing: several records in one sequence, each a segment of its own; only padding changes."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.errors import InputError


def pack_examples(examples: Sequence[Example], *, length: int, seed: int) -> list[Example]:
    """Pack whole records into sequences of at most ``length`` tokens.

    Best-fit decreasing: longest record first, each into the fullest sequence that still holds it
    (Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination"). Packing happens
    once, before any epoch, so an epoch visits each record once, in as many steps as the schedule
    of gamma counts. grain's packers work on the stream instead, where sequences mix epochs, their
    number varies, and more of them stays empty.

    Args:
        examples: Examples of single records.
        length: Tokens that fit in a sequence.
        seed: Seed that decides which of the equally long records share a sequence.

    Returns:
        Sequences whose segments count from 1 and whose positions restart; annotation bits and
        counts are those of the records.

    Raises:
        InputError: A record is longer than ``length``.
    """
    sizes = np.array([len(example.tokens) for example in examples], int)
    if sizes.max(initial=0) > length:
        raise InputError(
            f"a record of {sizes.max()} tokens does not fit in a sequence of {length}; raise the "
            "length, or leave the record out"
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    bins = _best_fit(sizes[order].tolist(), length)
    return [_join([examples[order[place]] for place in places]) for places in bins]


def filled(examples: Sequence[Example]) -> float:
    """Return the share of tokens that are not padding once the examples are stacked."""
    sizes = [len(example.tokens) for example in examples]
    return sum(sizes) / (len(sizes) * max(sizes))


def _best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Return the indices of the sizes that share each bin, filled in the order given."""
    bins: list[list[int]] = []
    bins_with: dict[int, list[list[int]]] = defaultdict(list)  # by free space
    spaces: list[int] = []  # keys of non-empty lists, sorted
    for place, size in enumerate(sizes):
        at = bisect_left(spaces, size)
        if at < len(spaces):
            space = spaces[at]
            fullest = bins_with[space].pop()
            if not bins_with[space]:
                spaces.pop(at)
        else:
            space, fullest = length, []
            bins.append(fullest)
        fullest.append(place)
        if not bins_with[space - size]:
            insort(spaces, space - size)
        bins_with[space - size].append(fullest)
    return bins


def _join(records: Sequence[Example]) -> Example:
    """Concatenate records into one sequence."""
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
