"""Packed rows hold every record once, whole and unchanged."""

import dataclasses
import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.data.alignment import Example
from cat_jax.data.batches import stack_examples, training_batches
from cat_jax.data.bitset import mask_counts
from cat_jax.data.packing import filled, pack_examples
from cat_jax.errors import InputError

FIELDS = ("tokens", "target_mask", "q_bits", "k_bits", "causal_count", "visible_count")


def record(number, length, words=1):
    """Its tokens are its number; its bits are random, and few of them."""
    rng = np.random.default_rng(number)
    q_bits, k_bits = np.bitwise_and.reduce(
        rng.integers(0, 2**32, (3, 2, length, words), np.uint32), axis=0
    )
    return Example(
        np.full(length, number, np.int32),
        rng.random(length) < 0.5,
        q_bits,
        k_bits,
        *mask_counts(q_bits, k_bits),
    )


def records(lengths, words=1):
    return [record(number, length, words) for number, length in enumerate(lengths)]


def contents(rows):
    """The numbers of the records in each row."""
    return [list(dict.fromkeys(row.tokens.tolist())) for row in rows]


LENGTHS = st.lists(st.integers(1, 11), min_size=1, max_size=40)


@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_every_record_is_there_once_and_unchanged(lengths, seed):
    given_records = records(lengths)
    seen = []
    for row in pack_examples(given_records, length=11, seed=seed):
        assert len(row.tokens) <= 11
        assert np.unique(row.segment_ids).tolist() == list(range(1, row.segment_ids[-1] + 1))
        for segment in range(1, row.segment_ids[-1] + 1):
            (places,) = np.nonzero(row.segment_ids == segment)
            number = int(row.tokens[places[0]])
            assert places.tolist() == list(range(places[0], places[0] + lengths[number]))
            assert row.positions[places].tolist() == list(range(lengths[number]))
            for name in FIELDS:
                ours, alone = getattr(row, name)[places], getattr(given_records[number], name)
                np.testing.assert_array_equal(ours, alone)
            seen.append(number)
    assert sorted(seen) == list(range(len(lengths)))


@given(lengths=LENGTHS)
def test_counts_are_those_of_the_packed_mask(lengths):
    for row in pack_examples(records(lengths, words=2), length=13, seed=0):
        causal, visible = mask_counts(row.q_bits, row.k_bits, row.segment_ids)
        np.testing.assert_array_equal(row.causal_count, causal)
        np.testing.assert_array_equal(row.visible_count, visible)


@given(lengths=LENGTHS)
def test_no_two_rows_could_be_one(lengths):
    """What any fit leaves: the two emptiest rows together are longer than one."""
    sizes = sorted(len(row.tokens) for row in pack_examples(records(lengths), length=11, seed=0))
    assert len(sizes) == 1 or sizes[0] + sizes[1] > 11


def test_each_record_goes_into_the_fullest_row_that_holds_it():
    rows = pack_examples(records([2, 7, 3, 6, 2]), length=10, seed=0)
    assert sorted(map(sorted, contents(rows))) == [[0, 3, 4], [1, 2]]
    assert filled(rows) == 1.0
    assert filled(rows[:1] + pack_examples(records([4]), length=10, seed=0)) == 0.7


def test_records_without_equal_sizes_are_packed_alike_by_every_seed_and_others_are_not():
    different, same = records([7, 5, 3, 2]), records([4] * 12)
    assert contents(pack_examples(different, length=9, seed=0)) == contents(
        pack_examples(different, length=9, seed=1)
    )
    one, again, other = (contents(pack_examples(same, length=12, seed=n)) for n in (0, 0, 1))
    assert one == again != other


def test_words_of_bits_are_filled_up():
    (row,) = pack_examples([record(0, 3, words=1), record(1, 2, words=2)], length=5, seed=0)
    assert row.q_bits.shape == row.k_bits.shape == (5, 2)
    assert not row.q_bits[:3, 1].any()
    np.testing.assert_array_equal(row.k_bits[3:], record(1, 2, words=2).k_bits)


def test_padding_is_a_segment_of_its_own():
    batch = stack_examples(pack_examples(records([5, 4, 3]), length=9, seed=0))
    assert batch.segment_ids_BT.tolist() == [[1] * 5 + [2] * 4, [1] * 3 + [0] * 6]
    assert batch.positions_BT.tolist() == [[*range(5), *range(4)], [*range(3), *([0] * 6)]]
    assert batch.segment_ids_BT.dtype == batch.positions_BT.dtype == np.int32
    assert not batch.visible_count_BT[1, 3:].any()


@pytest.mark.parametrize("taken", [0, 2, 5])
def test_a_saved_position_continues_with_the_same_rows(taken):
    def batches():
        rows = pack_examples(records([4, 3, 2] * 9), length=9, seed=5)
        return training_batches(rows, batch_size=4, seed=5)

    iterator, resumed = batches(), batches()
    for _ in range(taken):
        next(iterator)
    resumed.set_state(json.loads(json.dumps(iterator.get_state())))
    for batch, again in islice(zip(iterator, resumed, strict=False), 6):
        for field, same in zip(batch, again, strict=True):
            np.testing.assert_array_equal(field, same)


def test_a_record_longer_than_a_row():
    with pytest.raises(InputError, match="a record of 6 tokens does not fit in a sequence of 5"):
        pack_examples(records([3, 6]), length=5, seed=0)


def test_packing_needs_nothing_but_lengths():
    """So methods whose annotations differ train on the same rows in the same order."""
    bare = [
        dataclasses.replace(x, q_bits=x.q_bits * 0, k_bits=x.k_bits * 0) for x in records([3] * 20)
    ]
    packed = (pack_examples(rows, length=10, seed=2) for rows in (bare, records([3] * 20)))
    one, two = map(contents, packed)
    assert one == two
