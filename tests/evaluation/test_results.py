"""Scores that follow from kept answers, for one evaluation and for several together."""

import itertools
import math

import numpy as np
import pytest

from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation import Evaluation, TestAnswers, paired_test, share_interval
from cat_jax.evaluation.aggregate import aggregate_scores, paired_tests, summarize_evaluations
from cat_jax.evaluation.causal_mass import CausalMass


def answered(answers, targets, *, prompts=None, groups=None, measured=None, log_probs=None):
    prompts = prompts or [f"prompt {n}" for n in range(len(answers))]
    return TestAnswers(
        list(answers),
        list(targets),
        np.array([a == b for a, b in zip(answers, targets, strict=True)]),
        CausalMass(0.25, np.full((1, 1), 0.25)),
        measured or {},
        list(answers),
        [Record(text, target) for text, target in zip(prompts, targets, strict=True)],
        log_probs,
        groups or [None] * len(answers),
    )


def test_scores_by_label_and_group():
    found = answered("aabbab", "aabaab", groups=["x", "x", "y", "y", None, "y"])
    right = [True, True, True, False, True, True]
    assert found.scores["exact_match"] == (5 / 6, *share_interval(right), 6)
    assert {name: x.tolist() for name, x in found.by_label.items()} == {
        "a": [True, True, False, True],
        "b": [True, True],
    }
    assert {name: x.tolist() for name, x in found.by_group.items()} == {
        "x": [True, True],
        "y": [True, False, True],
    }
    assert found.scores["worst group"] == found.scores["group y"]
    assert found.scores["group y"].value == pytest.approx(2 / 3)


def test_numbers_are_no_labels_and_one_group_is_not_the_worst():
    found = answered(["1", "2", "3"], ["1", "2", "4"], groups=["x"] * 3)
    assert found.by_label == {}
    assert list(found.scores) == ["exact_match", "group x"]


def test_errors_of_answers_that_are_no_numbers_are_left_out():
    errors = np.array([1.0, math.nan, 4.0, 7.0])
    within = np.array([1.0, math.nan, 0.0, 0.0])
    found = answered("abcd", "abcd", measured={"absolute_error": errors, "within_2": within})
    assert found.measures == {"absolute_error": 4.0, "within_2": pytest.approx(1 / 3)}
    score = found.scores["absolute_error"]
    assert (score.value, score.count) == (4.0, 3)
    assert 1.0 <= score.low < 4.0 < score.high <= 7.0
    assert found.scores["within_2"].count == 3


def test_what_an_intervention_changes():
    prompts = [f"prompt {n}" for n in range(6)]
    before = answered("aabbcc", "aabbcc", prompts=prompts)
    # Records: unedited; right answer stays, twice; right answer changes, thrice.
    after = answered(
        ["z", "a", "b", "x", "y", "c"],
        ["a", "a", "b", "x", "x", "x"],
        prompts=["prompt 0", *(f"other {n}" for n in range(1, 6))],
    )
    evaluation = Evaluation("toy", {"iid": before}, {"mine": after})
    shares = evaluation.intervention_shares("mine")
    found = evaluation.sensitivity("mine")
    assert found.unedited == 1
    assert found.rightly_changed is not None
    assert found.rightly_changed.value == pytest.approx(1 / 3)
    assert {name: x.tolist() for name, x in shares.items()} == {
        "changed": [False, False, True, True, False],
        "right": [True, True, True, False, False],
        "rightly_changed": [True, False, False],
        "wrongly_changed": [False, False],
    }


def test_one_seed_has_the_scores_of_its_answers():
    test = answered("aab", "abb", groups=["x", "y", "y"])
    tests, edits = aggregate_scores([Evaluation("toy", {"iid": test})])
    assert tests == {"iid": test.scores}
    assert edits == {}


@pytest.mark.parametrize("shared", [True, False])
def test_seeds_are_averaged_and_weigh_the_same(shared):
    rng = np.random.default_rng(0)
    seeds = []
    for seed, share in enumerate([0.5, 0.75, 1.0]):
        count = 40 if shared else 40 + 20 * seed
        right = np.arange(count) < share * count
        prompts = [f"{0 if shared else seed}: {n}" for n in range(count)]
        answers = ["a" if x else "b" for x in right]
        measured = {"absolute_error": rng.normal(5, 1, count)}
        test = answered(answers, ["a"] * count, prompts=prompts, measured=measured)
        seeds.append(Evaluation("toy", {"iid": test}))
    scores = aggregate_scores(seeds)[0]["iid"]
    assert scores["exact_match"].value == pytest.approx(0.75)
    assert scores["exact_match"].count == (120 if shared else 180)
    assert 0.4 <= scores["exact_match"].low < 0.65 < 0.85 < scores["exact_match"].high <= 1
    means = [found["iid"].measured["absolute_error"].mean() for found in seeds]
    assert scores["absolute_error"].value == pytest.approx(np.mean(means))


def test_methods_are_tested_on_the_same_records_of_all_seeds():
    targets = "aabbab"
    first = [Evaluation("t", {"iid": answered(x, targets)}) for x in ("aabbab", "bbbbab")]
    second = [Evaluation("t", {"iid": answered(x, targets)}) for x in ("aabbba", "aaaabb")]
    rights = [
        list(itertools.chain(*(found["iid"].right for found in seeds))) for seeds in (first, second)
    ]
    assert paired_tests(first, second) == {"iid": paired_test(*rights)}
    with pytest.raises(InputError, match="same seeds of both methods, got 2 and 1"):
        paired_tests(first, second[:1])
    other = Evaluation("t", {"iid": answered("aabb", "aabb")})
    with pytest.raises(InputError, match="'iid': a paired test needs answers to the same records"):
        paired_tests(first, [other, other])


def test_a_summary_holds_what_was_measured():
    logs = np.array([-1.0, -2.0, -3.0])
    plain = Evaluation("t", {"iid": answered("aba", "aab", log_probs=logs)})
    cat = Evaluation("t", {"iid": answered("aab", "aab")}, {})
    found = summarize_evaluations({"plain": [plain], "cat": [cat]})
    assert found["plain"]["log_probability"] == {"iid": -2.0}
    assert found["cat"]["log_probability"] == {"iid": None}
    assert "against" not in found["plain"]
    assert found["cat"]["against"]["plain"]["iid"]["only_first"] == 2
    assert found["cat"]["sets"]["iid"]["exact_match"]["value"] == 1.0
    assert found["cat"]["causal_mass"] == 0.25
