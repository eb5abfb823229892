import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cat_jax.data.bitset import decode, encode_mask, encode_rectangles, mask_counts


@st.composite
def masks(draw):
    length = draw(st.integers(1, 40))
    return draw(hnp.arrays(bool, (length, length)))


@st.composite
def rectangles(draw):
    length = draw(st.integers(1, 20))
    positions = st.lists(st.integers(0, length - 1), max_size=6)
    return draw(st.lists(st.tuples(positions, positions), max_size=50)), length


def union(effects, length):
    mask = np.zeros((length, length), bool)
    for rows, columns in effects:
        for i in rows:
            for j in columns:
                mask[i, j] = j <= i
    return mask


@settings(deadline=None)
@given(masks())
def test_any_mask_survives(mask):
    q_bits, k_bits = encode_mask(mask)
    np.testing.assert_array_equal(decode(q_bits, k_bits), np.tril(mask))
    assert np.bitwise_count(q_bits).sum(axis=1).max() <= 1
    assert q_bits.dtype == k_bits.dtype == np.uint32
    assert q_bits.shape == k_bits.shape


@settings(deadline=None)
@given(rectangles())
def test_any_union_of_rectangles_survives(case):
    effects, length = case
    ((q_bits, k_bits, causal),) = encode_rectangles([effects], [length])
    mask = union(effects, length)
    np.testing.assert_array_equal(decode(q_bits, k_bits), mask)
    np.testing.assert_array_equal(causal, mask.sum(axis=1))
    assert np.bitwise_count(q_bits).sum(axis=1).max() <= 1
    assert causal.dtype == np.int32


@settings(deadline=None)
@given(st.lists(rectangles(), max_size=5))
def test_masks_that_are_encoded_at_once_are_those_of_each(cases):
    masks, lengths = [effects for effects, _ in cases], [length for _, length in cases]
    together = encode_rectangles(masks, lengths)
    assert len(together) == len(cases)
    for effects, length, found in zip(masks, lengths, together, strict=True):
        (alone,) = encode_rectangles([effects], [length])
        for of_all, of_one in zip(found, alone, strict=True):
            np.testing.assert_array_equal(of_all, of_one)
            assert of_all.dtype == of_one.dtype


def count_bits(bits):
    return sum(int(word).bit_count() for word in np.bitwise_or.reduce(bits))


def test_words_grow_with_the_effects():
    for effects, words in ((0, 1), (1, 1), (32, 1), (33, 2), (64, 2), (65, 3)):
        shapes = [([100 + n], [n, 2 * n + 1]) for n in range(effects)]
        ((q_bits, k_bits, _),) = encode_rectangles([shapes], [170])
        assert q_bits.shape == k_bits.shape == (170, words)
        assert count_bits(q_bits) == effects
        np.testing.assert_array_equal(decode(q_bits, k_bits), union(shapes, 170))


def test_effects_that_see_the_same_columns_share_a_bit():
    # Column 9 is above both rows' diagonal, so the two differ nowhere.
    effects = [([5, 6], [1, 3]), ([8], [3, 1, 9]), ([7], [9])]
    ((q_bits, k_bits, _),) = encode_rectangles([effects], [10])
    assert q_bits[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 1, 0]
    assert k_bits[:, 0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0, 0]


def test_rows_of_two_effects_are_a_class_of_their_own():
    effects = [([4, 5], [0, 2]), ([5, 6], [1, 2])]
    ((q_bits, k_bits, causal),) = encode_rectangles([effects], [8])
    assert q_bits[:, 0].tolist() == [0, 0, 0, 0, 1, 2, 4, 0]
    assert k_bits[:, 0].tolist() == [1 | 2, 2 | 4, 1 | 2 | 4, 0, 0, 0, 0, 0]
    assert causal.tolist() == [0, 0, 0, 0, 2, 3, 2, 0]


def test_rows_share_a_bit_only_where_both_see_alike():
    mask = np.zeros((4, 4), bool)
    mask[1, :2] = mask[3, [0, 1, 3]] = True  # below row 1's diagonal the two agree
    assert count_bits(encode_mask(mask)[0]) == 1
    mask[2, 0] = True
    assert count_bits(encode_mask(mask)[0]) == 2


@settings(deadline=None)
@given(masks(), st.data())
def test_counts_are_those_of_the_whole_mask(mask, data):
    q_bits, k_bits = encode_mask(mask)
    causal, visible = mask_counts(q_bits, k_bits)
    np.testing.assert_array_equal(causal, np.tril(mask).sum(axis=1))
    np.testing.assert_array_equal(visible, np.arange(len(mask)) + 1)

    lengths = data.draw(st.lists(st.integers(1, 9), min_size=len(mask), max_size=len(mask)))
    segments = np.repeat(np.arange(len(mask))[::-1], lengths)[: len(mask)]
    within = np.tril(segments[:, None] == segments[None, :])
    causal, visible = mask_counts(q_bits, k_bits, segments)
    np.testing.assert_array_equal(causal, (mask & within).sum(axis=1))
    np.testing.assert_array_equal(visible, within.sum(axis=1))
    assert causal.dtype == visible.dtype == np.int32


def test_a_key_that_shares_two_bits_counts_once():
    q_bits = np.array([[0, 0], [0, 0], [3, 1]], np.uint32)
    k_bits = np.array([[3, 1], [2, 0], [0, 0]], np.uint32)
    assert mask_counts(q_bits, k_bits)[0].tolist() == [0, 0, 2]


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_segment_ids_of_any_integer_type(dtype):
    q_bits = k_bits = np.ones((4, 1), np.uint32)
    causal, visible = mask_counts(q_bits, k_bits, np.array([0, 0, 1, 1], dtype))
    assert causal.tolist() == visible.tolist() == [1, 2, 1, 2]
