"""Examples to batches: padded once, shuffled by grain, with a position that can be saved."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.errors import InputError


class Batch(NamedTuple):
    """Rows padded on the right with token 0, where nothing is trained and nothing is annotated.

    Causal attention never looks right, so the padding changes no other position. The fields are
    numpy arrays on the host and jax arrays inside a jitted function.

    Attributes:
        tokens_BT: token ids, int32.
        target_mask_BT: True at the answer's tokens.
        q_bits_BTW: annotation bits as queries, uint32.
        k_bits_BTW: annotation bits as keys, uint32.
        causal_count_BT: annotated keys each row sees, int32.
        visible_count_BT: keys each row sees, int32.
        segment_ids_BT: which record of a packed row a token is of, counted from 1, int32; 0 is
            padding. None where rows are single records, as the next.
        positions_BT: of the tokens in their record, int32.
    """

    tokens_BT: Any
    target_mask_BT: Any
    q_bits_BTW: Any
    k_bits_BTW: Any
    causal_count_BT: Any
    visible_count_BT: Any
    segment_ids_BT: Any = None
    positions_BT: Any = None


READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
"""Batches are made while the device computes; a few of them are enough, and fit in memory."""


def common_shape(examples: Sequence[Example]) -> tuple[int, int]:
    """T and W that hold all of the examples."""
    length = max(len(example.tokens) for example in examples)
    return length, max(example.q_bits.shape[1] for example in examples)


def stack_examples(examples: Sequence[Example], shape: tuple[int, int] | None = None) -> Batch:
    """All examples as one batch of numpy arrays, of their ``common_shape`` or a larger one."""
    length, words = common_shape(examples) if shape is None else shape

    def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
        trailing = (words,) if arrays[0].ndim == 2 else ()
        stacked = np.zeros((len(arrays), length, *trailing), arrays[0].dtype)
        for row, array in zip(stacked, arrays, strict=True):
            row[tuple(slice(size) for size in array.shape)] = array
        return stacked

    names = ["tokens", "target_mask", "q_bits", "k_bits", "causal_count", "visible_count"]
    if any(example.segment_ids is not None for example in examples):
        names += ["segment_ids", "positions"]
    return Batch(*(stack([getattr(example, name) for example in examples]) for name in names))


def stack_whole_batches(examples: Sequence[Example], batch_size: int) -> Batch:
    """As ``stack_examples``, with empty rows that complete the last batch of ``batch_size``.

    All batches have one shape, for one compilation; empty rows count in no loss and no metric.
    """
    rows = stack_examples(examples)
    missing = -len(examples) % batch_size
    return Batch(*(_with_empty_rows(array, missing) for array in rows))


def _with_empty_rows(array: np.ndarray | None, count: int) -> np.ndarray | None:
    return None if array is None else np.pad(array, [(0, count)] + [(0, 0)] * (array.ndim - 1))


def training_batches(
    examples: Sequence[Example],
    *,
    batch_size: int,
    seed: int,
    process_indices: np.ndarray | slice = slice(None),
) -> grain.DatasetIterator:
    """Endless batches; each epoch visits the rows in a new order and drops an incomplete batch.

    The iterator's ``get_state()`` is a small JSON value, ``set_state`` continues after it.

    Args:
        examples: all training rows, in every process.
        batch_size: rows of a batch, of all processes together.
        seed: of the order, which is the same however many processes there are.
        process_indices: the sequences of each batch that this process supplies
            (``cat_jax.sharding.process_indices``).

    Raises:
        InputError: fewer examples than one batch holds.
    """
    if len(examples) < batch_size:
        raise InputError(
            f"{len(examples)} training rows do not fill one batch of {batch_size}; "
            "add rows or lower train.batch_size"
        )
    shape = common_shape(examples)
    indices = grain.MapDataset.range(len(examples)).seed(seed).shuffle()
    batches = indices.batch(batch_size, drop_remainder=True).repeat()

    def gather(ids: np.ndarray) -> Batch:
        return stack_examples([examples[n] for n in ids[process_indices]], shape)

    return iter(batches.map(gather).to_iter_dataset(READING))
