"""Sensitivity against a loop over records, and Wilson's interval by its formula."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.errors import InputError
from cat_jax.evaluation import Sensitivity, measure_sensitivity, score_sensitivity

ANSWERS = st.sampled_from(["High", "Low", "7"])
ROWS = st.lists(st.tuples(ANSWERS, ANSWERS, ANSWERS, ANSWERS, st.booleans()), min_size=1)


def check(score, right, count):
    """Compare a score with Wilson (1927), equation for the limits, at 95 %."""
    if score is None:
        assert count == 0
        return
    z, share = 1.959963984540054, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    assert score.count == count
    assert score.value == share
    assert score.low == pytest.approx(middle - half, abs=1e-12)
    assert score.high == pytest.approx(middle + half, abs=1e-12)


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_shares_of_the_edited_records(rows, lenient):
    if not any(is_edited for *_, is_edited in rows):
        rows = [(*answers, True) for *answers, _ in rows]

    def judge(answer, target):
        return answer == target or (lenient and answer == "7")

    before, after, targets, new_targets, edited = map(list, zip(*rows, strict=True))
    found = measure_sensitivity(before, after, targets, new_targets, judge, edited=edited)
    counts = dict.fromkeys(("all", "changed", "right", "moved", "followed", "kept", "strayed"), 0)
    for old, new, target, new_target, is_edited in rows:
        if not is_edited:
            continue
        counts["all"] += 1
        counts["changed"] += old != new
        counts["right"] += judge(new, new_target)
        if target != new_target:
            counts["moved"] += 1
            counts["followed"] += old != new and judge(new, new_target)
        else:
            counts["kept"] += 1
            counts["strayed"] += old != new
    check(found.changed, counts["changed"], counts["all"])
    check(found.right, counts["right"], counts["all"])
    check(found.rightly_changed, counts["followed"], counts["moved"])
    check(found.wrongly_changed, counts["strayed"], counts["kept"])
    assert found.unedited == len(rows) - counts["all"]


def test_a_model_that_follows_the_cause_and_one_that_does_not():
    targets, new_targets = ["a", "b", "a", "b"], ["b", "b", "b", "a"]
    follows = measure_sensitivity(targets, new_targets, targets, new_targets)
    assert (follows.changed.value, follows.right.value) == (0.75, 1.0)
    assert (follows.rightly_changed.value, follows.wrongly_changed.value) == (1.0, 0.0)
    deaf = measure_sensitivity(targets, targets, targets, new_targets)
    assert (deaf.changed.value, deaf.right.value) == (0.0, 0.25)
    assert (deaf.rightly_changed.value, deaf.wrongly_changed.value) == (0.0, 0.0)
    assert deaf.rightly_changed.count == 3


def test_what_is_known_already_needs_no_answers():
    given_ = score_sensitivity([True, False], [True, True], [True, False])
    assert given_ == measure_sensitivity(["a", "b"], ["b", "b"], ["a", "b"], ["b", "b"])
    assert isinstance(given_, Sensitivity)
    assert given_.unedited == 0


def test_bad_input():
    with pytest.raises(InputError, match="the same records before and after, got 2, 1, 2, 2"):
        measure_sensitivity(["a", "b"], ["a"], ["a", "b"], ["a", "b"])
    with pytest.raises(InputError, match="the same records before and after, got 1, 1, 1, 2"):
        score_sensitivity([True], [True], [True], edited=[True, True])
    with pytest.raises(InputError, match="edited none of 2 records"):
        score_sensitivity([True, False], [True, True], [True, True], edited=[False, False])
