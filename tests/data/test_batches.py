import json
from itertools import islice

import numpy as np
import pytest

from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch, stack_examples, training_batches
from cat_jax.errors import InputError

FIELDS = ("tokens", "target_mask", "q_bits", "k_bits", "causal_count", "visible_count")


def example(number, length=3, words=1):
    """A row that its number tells from all others, with no zero that padding could be taken for."""
    numbers = np.full(length, number + 1, np.int32)
    bits = np.full((length, words), number + 1, np.uint32)
    return Example(numbers, np.ones(length, bool), bits, bits << 8, numbers + 100, numbers + 200)


def row_numbers(batch):
    """Which rows a batch holds, read from each field, all of which must agree."""
    first = batch.tokens_BT[:, 0] - 1
    np.testing.assert_array_equal(batch.q_bits_BTW[:, 0, 0], first + 1)
    np.testing.assert_array_equal(batch.k_bits_BTW[:, 0, 0], (first + 1) << 8)
    np.testing.assert_array_equal(batch.causal_count_BT[:, 0], first + 101)
    np.testing.assert_array_equal(batch.visible_count_BT[:, 0], first + 201)
    return first.tolist()


def batches(rows, **options):
    return training_batches([example(n) for n in range(rows)], **options)


def epochs(rows, batch_size, count, seed=0):
    """The rows of each epoch in the order of their visits."""
    iterator = batches(rows, batch_size=batch_size, seed=seed)
    visits = [row_numbers(next(iterator)) for _ in range(count * (rows // batch_size))]
    return np.array(visits).reshape(count, -1).tolist()


def test_rows_of_different_sizes_are_padded_with_zeros():
    rows = [example(0, length=4, words=1), example(1, length=2, words=3), example(2, length=5)]
    batch = stack_examples(rows)
    shapes = [(3, 5), (3, 5), (3, 5, 3), (3, 5, 3), (3, 5), (3, 5)]
    assert batch.segment_ids_BT is batch.positions_BT is None
    assert [field.shape for field in batch[:6]] == shapes
    for name, field in zip(FIELDS, batch[:6], strict=True):
        for row, padded in zip(rows, field, strict=True):
            own = getattr(row, name)
            corner = tuple(slice(size) for size in own.shape)
            np.testing.assert_array_equal(padded[corner], own)
            padded[corner] = 0
            assert not padded.any()


def test_dtypes_are_those_that_models_and_losses_take():
    kinds = [field.dtype.name for field in stack_examples([example(0)])[:6]]
    assert kinds == ["int32", "bool", "uint32", "uint32", "int32", "int32"]


@pytest.mark.parametrize(("rows", "batch_size"), [(12, 4), (11, 4), (7, 7), (5, 3), (6, 1)])
def test_an_epoch_visits_no_row_twice_and_drops_only_the_remainder(rows, batch_size):
    for visited in epochs(rows, batch_size, count=3):
        assert len(visited) == rows - rows % batch_size
        assert len(set(visited)) == len(visited)
        assert set(visited) <= set(range(rows))


def test_epochs_differ_in_order_and_in_the_rows_they_drop():
    visits = epochs(23, 5, count=12)
    assert len({tuple(visited) for visited in visits}) == 12
    assert set().union(*visits) == set(range(23))
    assert len({frozenset(visited) for visited in visits}) > 1


def test_the_seed_alone_decides_the_order():
    assert epochs(16, 4, 2, seed=3) == epochs(16, 4, 2, seed=3)
    assert epochs(16, 4, 2, seed=3) != epochs(16, 4, 2, seed=4)


@pytest.mark.parametrize("taken", [0, 2, 3, 7])
def test_a_saved_position_continues_exactly(taken):
    """With 3 batches an epoch: at the start, inside an epoch, between two, and in the third."""
    iterator = batches(11, batch_size=3, seed=5)
    for _ in range(taken):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [row_numbers(batch) for batch in islice(iterator, 6)]
    resumed = batches(11, batch_size=3, seed=5)
    next(resumed)
    resumed.set_state(state)
    assert [row_numbers(batch) for batch in islice(resumed, 6)] == expected


def test_batches_have_one_shape():
    rows = [example(n, length=n + 1) for n in range(5)]
    iterator = training_batches(rows, batch_size=2, seed=0)
    for batch in islice(iterator, 6):
        assert isinstance(batch, Batch)
        assert batch.tokens_BT.shape == (2, 5)
        assert batch.q_bits_BTW.shape == (2, 5, 1)


@pytest.mark.parametrize("rows", [0, 3])
def test_too_few_rows_for_a_batch(rows):
    with pytest.raises(InputError, match=rf"{rows} training sequences do not fill one batch of 4"):
        batches(rows, batch_size=4, seed=0)


@pytest.mark.parametrize(
    "shares", [[[0, 1, 2, 3, 4, 5]], [[0, 1, 2], [3, 4, 5]], [[1, 4], [0, 2, 3, 5]]]
)
def test_shares_of_each_batch_make_up_the_batch(shares):
    whole = batches(20, batch_size=6, seed=2)
    parts = [batches(20, batch_size=6, seed=2, process_indices=np.array(own)) for own in shares]
    for batch in islice(whole, 7):
        rows = np.empty(6, int)
        for own, part in zip(shares, parts, strict=True):
            rows[own] = row_numbers(next(part))
        assert rows.tolist() == row_numbers(batch)
    assert all(part.get_state() == whole.get_state() for part in parts)
