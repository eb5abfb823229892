"""Several opinions on a record: what is kept of them, and how much they agree."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import cat_jax as cat
from cat_jax.annotation import Answer, krippendorff_alpha, outcome_fields, read_prior
from cat_jax.data.records import Record
from cat_jax.errors import InputError

PRIOR = read_prior("risk")
RECORD = Record("Age: 20, Shoes: 41, Weight: 9. Risk: ", "High")
AGE, SHOES, WEIGHT, HIGH = (5, 7), (16, 18), (28, 29), (37, 41)


def reply(*causes):
    effect = {"text": "High", "kind": "answer"}
    spans = [{"text": cause, "kind": "value"} for cause in causes]
    return json.dumps({"annotations": [{"effect": effect, "causes": spans}]})


@dataclass
class Says:
    """Answers in order, whatever is asked."""

    answers: list[str]
    model: str = "m"
    parameters: dict = field(default_factory=lambda: {"temperature": 0.7})

    def complete(self, messages):
        return Answer(self.answers.pop(0), 10, 2)


def outcome(client, **options):
    (found,) = cat.annotate([RECORD], PRIOR, client, concurrency=1, **options).outcomes
    return found


def causes(record):
    return [cause.text for note in record.important for cause in note.causes]


THREE = [reply("9", "20"), reply("20", "41"), reply("20", "9")]


def test_most_or_all_of_three_samples():
    most = outcome(Says([*THREE]), samples=3)
    assert causes(most.record) == ["20", "9"]  # in the order of the text
    assert most.agreement.opinions == 3
    shares = {(HIGH, AGE): 1.0, (HIGH, SHOES): pytest.approx(1 / 3), (HIGH, WEIGHT): 2 / 3}
    assert most.agreement.shares == shares
    assert most.agreement.share == pytest.approx(2 / 3)
    assert (most.attempts, most.prompt_tokens, most.completion_tokens) == (3, 30, 6)
    every = outcome(Says([*THREE]), samples=3, keep="intersection")
    assert causes(every.record) == ["20"]
    about = outcome_fields(most, PRIOR)["annotation"]
    assert about["agreement"]["edges"][1] == {
        "effect": [*HIGH],
        "cause": [*SHOES],
        "share": pytest.approx(1 / 3),
    }
    assert [kind["start"] for kind in about["kinds"]] == [5, 28, 37]  # of what is kept


def test_several_models():
    clients = [Says([said], model) for said, model in zip(THREE, "abc", strict=True)]
    found = outcome(clients)
    assert causes(found.record) == ["20", "9"]
    assert outcome_fields(found, PRIOR)["annotation"]["model"] == "a, b, c"


def test_opinions_that_do_not_pass():
    twice_bad = ["no", "no"]
    kept = outcome(Says([*twice_bad, *THREE[1:]]), samples=3)
    assert causes(kept.record) == ["20"]
    assert kept.agreement.opinions == 2
    lost = outcome(Says([*twice_bad, "{}", "{}", THREE[0]]), samples=3)
    assert not lost.accepted
    assert lost.reply == "no"
    assert len(lost.reasons) == 2
    assert lost.record == RECORD


def test_opinions_that_share_nothing():
    found = outcome(Says([reply("20"), reply("41"), reply("9")]), samples=3)
    assert found.reasons == ("the opinions agree on nothing that the answer depends on",)
    assert len(outcome_fields(found, PRIOR)["annotation"]["agreement"]["edges"]) == 3


def test_samples_at_temperature_0_are_refused():
    client = Says([], parameters={"temperature": 0})
    with pytest.raises(InputError, match="3 samples at temperature 0 are all the same"):
        outcome(client, samples=3)
    with pytest.raises(InputError, match="no assistant is given"):
        outcome([])


def test_another_retry_of_a_sample_is_not_another_sample():
    cache = cat.AnswerCache()
    first = outcome(Says(["no", "no", *THREE[:2]]), samples=3, cache=cache)
    assert causes(first.record) == ["20"]
    retried = outcome(Says([THREE[2]]), samples=3, cache=cache, retry_rejects=True)
    assert causes(retried.record) == ["20", "9"]
    again = outcome(Says([]), samples=3, cache=cache)
    assert again.record == retried.record
    assert again.cached


# Two observers of ten units, from section A of Krippendorff's paper of 2011: alpha is 0.095.
MEG, OWEN = "0100000010", "1110010000"


def edges(marks):
    return {((10, 11), (n, n + 1)) for n, mark in enumerate(marks) if mark == "1"}


def test_alpha_is_that_of_the_paper():
    found = krippendorff_alpha([("abcdefghij!", [edges(MEG), edges(OWEN)])])
    assert found == pytest.approx(0.095, abs=5e-4)
    # Spaces are no units, and a record with one annotator says nothing.
    spaced = [("a b c d e f g h i j !", [spread(MEG), spread(OWEN)]), ("x", [edges(MEG)])]
    assert krippendorff_alpha(spaced) == pytest.approx(found)


def spread(marks):
    return {((20, 21), (2 * a, 2 * a + 1)) for _, (a, _) in edges(marks)}


def test_alpha_at_its_ends():
    assert krippendorff_alpha([("abcdefghij!", [edges(MEG)] * 3)]) == 1
    assert np.isnan(krippendorff_alpha([]))
    assert np.isnan(krippendorff_alpha([("abcdefghij!", [set(), set()])]))


MARKS = st.integers(2, 4).flatmap(
    lambda raters: st.lists(
        st.lists(st.booleans(), min_size=7, max_size=7), min_size=raters, max_size=raters
    )
)


@given(st.lists(MARKS, min_size=1, max_size=4))
def test_alpha_is_what_pairs_of_values_say(records):
    """Observed and expected disagreement counted pair by pair."""
    units, weights = [], []
    given_ = []
    for rows in records:
        given_.append(
            (
                "abcdefg!",
                [{((7, 8), (n, n + 1)) for n, mark in enumerate(row) if mark} for row in rows],
            )
        )
        if any(map(any, rows)):
            for column in zip(*rows, strict=True):
                units.append(column)
                weights.append(1 / (len(column) - 1))
    values = [value for unit in units for value in unit]
    observed = sum(
        weight * sum(a != b for a in unit for b in unit)
        for unit, weight in zip(units, weights, strict=True)
    )
    expected = sum(a != b for a in values for b in values)
    found = krippendorff_alpha(given_)
    if expected:
        total = len(values)
        assert found == pytest.approx(1 - (observed / total) / (expected / (total * (total - 1))))
    else:
        assert np.isnan(found)
