"""Intervals and tests against closed forms, and against how often they cover the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.errors import InputError
from cat_jax.evaluation import (
    mean_interval,
    mean_score,
    paired_test,
    share_interval,
    share_score,
)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_wilsons_interval_is_that_of_its_formula(right):
    n, share, z = len(right), sum(right) / len(right), 1.959963984540054
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = share_interval(right)
    assert low == pytest.approx(max(0, middle - half), abs=1e-12)
    assert high == pytest.approx(min(1, middle + half), abs=1e-12)
    assert low <= share <= high
    narrow = share_interval(right, 0.5)
    assert low <= narrow.low <= narrow.high <= high


def test_the_bootstrap_of_one_seed_is_that_of_the_normal_mean():
    values_R = np.random.default_rng(1).normal(2.0, 3.0, 400)
    low, high = mean_interval([values_R])
    error = 1.96 * values_R.std() / 20
    assert low == pytest.approx(values_R.mean() - error, abs=0.03)
    assert high == pytest.approx(values_R.mean() + error, abs=0.03)
    assert mean_interval([values_R]) == (low, high)
    assert mean_interval([values_R], seed=1) != (low, high)


def test_the_bootstrap_covers_seeds_and_records():
    """Of scores with an effect of the record and one of the seed, as of 7 seeds and 31 records."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        values_SR = 0.5 + rng.normal(0, 0.3, (7, 1)) + rng.normal(0, 1, 31)
        low, high = mean_interval(values_SR, samples=500)
        covered.append(low <= 0.5 <= high)
        one = mean_interval(values_SR[:1], samples=500)
        assert one.high - one.low < 1.2
    assert 0.88 < np.mean(covered) <= 1


def test_the_bootstrap_covers_seeds_with_records_of_their_own():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        effects = rng.normal(0, 0.3, 9)
        values = [0.5 + x + rng.normal(0, 1, 5 + 7 * n) for n, x in enumerate(effects)]
        low, high = mean_interval(values, samples=500, crossed=False)
        covered.append(low <= 0.5 <= high)
    assert 0.85 < np.mean(covered) < 0.99


def test_seeds_with_records_of_their_own_vary_less_than_with_shared_ones():
    values_SR = np.tile(np.random.default_rng(1).normal(size=40), (9, 1))
    shared, own = (mean_interval(values_SR, crossed=x) for x in (True, False))
    assert shared.high - shared.low == pytest.approx(3 * (own.high - own.low), rel=0.2)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_score_is_a_mean_and_its_interval(right):
    found = share_score(right)
    assert found == (np.mean(right), *share_interval(right), len(right))
    mean = mean_score([right, [*right, True]], crossed=False)
    assert mean.value == pytest.approx((np.mean(right) + np.mean([*right, True])) / 2)
    assert mean.low <= mean.value + 1e-12
    assert mean.value - 1e-12 <= mean.high
    assert mean.count == 2 * len(right) + 1


def test_the_same_for_every_record_and_seed_has_no_width():
    assert mean_interval(np.full((3, 5), 0.25)) == (0.25, 0.25)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemars_test_is_a_sum_of_binomials(pairs):
    first, second = zip(*pairs, strict=True)
    found = paired_test(first, second)
    b = sum(x and not y for x, y in pairs)
    c = sum(y and not x for x, y in pairs)
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert found == (b, c, pytest.approx(min(1.0, 2 * tail)))
    assert paired_test(second, first).p_value == pytest.approx(found.p_value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: share_interval([]), "no interval without answers"),
        (lambda: share_interval([True], 1.0), "between 0 and 1, got 1.0"),
        (lambda: mean_interval([[1.0, math.nan]]), "not finite"),
        (lambda: mean_interval([[]]), "no interval without answers"),
        (lambda: mean_interval([]), "no interval without answers"),
        (lambda: mean_interval([[1.0], [1.0, 2.0]]), "as many values each"),
        (lambda: paired_test([True], [True, False]), "got 1 and 2"),
        (lambda: paired_test([], []), "got 0 and 0"),
    ],
)
def test_what_has_no_answer_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()
