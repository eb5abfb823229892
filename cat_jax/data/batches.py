"""Batches of examples: padded once, shuffled by grain, resumable from a saved position."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from cat_jax.data.alignment import Example
from cat_jax.data.shards import ShardedExamples
from cat_jax.errors import InputError


class Batch(NamedTuple):
    """Sequences padded on the right with token 0, which is neither a target nor annotated.

    Attention is causal, so padding on the right changes no other position. Fields are numpy arrays
    on the host and jax arrays inside a jitted function.

    Attributes:
        tokens_BT: Token ids, int32.
        target_mask_BT: True at the tokens to predict.
        q_bits_BTW: Annotation bits of queries, uint32.
        k_bits_BTW: Annotation bits of keys, uint32.
        causal_count_BT: Annotated keys that each query sees, int32.
        visible_count_BT: Keys that each query sees, int32.
        segment_ids_BT: Record of each token of a packed sequence, counted from 1, int32; 0 is
            padding. None where every sequence is a single record.
        positions_BT: Position of each token in its record, int32; None as above.
    """

    tokens_BT: Any
    target_mask_BT: Any
    q_bits_BTW: Any
    k_bits_BTW: Any
    causal_count_BT: Any
    visible_count_BT: Any
    segment_ids_BT: Any = None
    positions_BT: Any = None


READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
"""Batches are made while the device computes; a buffer of a few is enough and fits in memory."""


def common_shape(examples: Sequence[Example]) -> tuple[int, int]:
    """Return the smallest (T, W) that holds all examples."""
    if isinstance(examples, ShardedExamples):
        return examples.manifest.shape
    length = max(len(example.tokens) for example in examples)
    return length, max(example.q_bits.shape[1] for example in examples)


def most_targets(examples: Sequence[Example]) -> int:
    """Return the largest number of target tokens of an example."""
    if isinstance(examples, ShardedExamples):
        return examples.manifest.targets
    return max(int(example.target_mask.sum()) for example in examples)


def stack_examples(examples: Sequence[Example], shape: tuple[int, int] | None = None) -> Batch:
    """Stack examples into one batch of numpy arrays.

    Args:
        examples: Examples.
        shape: T and W of the batch; None takes their ``common_shape``.
    """
    length, words = common_shape(examples) if shape is None else shape

    def stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
        whole = (length, words)[: arrays[0].ndim]
        if all(array.shape == whole for array in arrays):
            return np.stack(arrays)  # much faster
        stacked = np.zeros((len(arrays), *whole), arrays[0].dtype)
        for padded, array in zip(stacked, arrays, strict=True):
            padded[tuple(slice(size) for size in array.shape)] = array
        return stacked

    names = ["tokens", "target_mask", "q_bits", "k_bits", "causal_count", "visible_count"]
    if any(example.segment_ids is not None for example in examples):
        names += ["segment_ids", "positions"]
    return Batch(*(stack([getattr(example, name) for example in examples]) for name in names))


def stack_whole_batches(examples: Sequence[Example], batch_size: int) -> Batch:
    """Stack examples, with empty sequences that complete the last batch of ``batch_size``.

    All batches then have one shape and compile once; empty sequences count in no loss or metric.
    """
    missing = -len(examples) % batch_size
    return Batch(*(_append_empty(array, missing) for array in stack_examples(examples)))


def _append_empty(array: np.ndarray | None, count: int) -> np.ndarray | None:
    return None if array is None else np.pad(array, [(0, count)] + [(0, 0)] * (array.ndim - 1))


def training_batches(
    examples: Sequence[Example],
    *,
    batch_size: int,
    seed: int,
    process_indices: np.ndarray | slice = slice(None),
) -> grain.DatasetIterator:
    """Return an endless iterator of batches.

    Each epoch visits the examples in a new order and drops the last batch if it is incomplete. The
    iterator's ``get_state()`` is a small JSON value; ``set_state`` resumes from it.

    Args:
        examples: Training sequences, the same in every process.
        batch_size: Sequences per batch, over all processes.
        seed: Seed of the order, which does not depend on the number of processes.
        process_indices: Indices of each batch's sequences that this process supplies
            (``cat_jax.sharding.process_indices``).

    Raises:
        InputError: There are fewer examples than one batch holds.
    """
    if len(examples) < batch_size:
        raise InputError(
            f"{len(examples)} training sequences do not fill one batch of {batch_size}; "
            "add records or lower train.batch_size"
        )
    shape = common_shape(examples)
    indices = grain.MapDataset.range(len(examples)).seed(seed).shuffle()
    batches = indices.batch(batch_size, drop_remainder=True).repeat()

    def gather(ids: np.ndarray) -> Batch:
        return stack_examples([examples[n] for n in ids[process_indices]], shape)

    return iter(batches.map(gather).to_iter_dataset(READ_OPTIONS))
