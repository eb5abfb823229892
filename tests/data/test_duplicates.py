"""Test records that also stand in the training data, counted as sets of texts are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.duplicates import find_duplicates
from cat_jax.data.records import Record
from cat_jax.data.sources import read_records


def talk(*contents, **options):
    roles = ("user", "assistant") * len(contents)
    messages = (Message(role, text) for role, text in zip(roles, contents, strict=False))
    return Conversation(tuple(messages), **options)


QUESTIONS = st.lists(st.text("ab", min_size=1, max_size=3), max_size=9)


@given(training=QUESTIONS, test=QUESTIONS)
def test_counts_are_those_of_sets(training, test):
    found = find_duplicates(
        [Record(text, "x") for text in training], {"ood": [Record(text, "y") for text in test]}
    )["ood"]
    assert (found.count, found.records) == (sum(text in training for text in test), len(test))
    assert (found.first is None) == (found.count == 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Record("a  b\n", "x"), Record(" a b", "y"), True),
        (Record("a b", "x"), Record("ab", "x"), False),
        (Record("a", "x"), Record("A", "x"), False),
        (Record("", "x y"), Record("", "x  y "), True),
        (Record("", "x y"), Record("", "x z"), False),
        (talk("a", "x"), talk("a ", "y"), True),
        (talk("a", "x"), talk("b", "x"), False),
        (talk("a", "x", "b", "y"), talk("a", "x", "b", "z"), True),
        (talk("a", "x", "b", "y"), talk("a", "w", "b", "y"), False),
        (talk("a", "x", "b", "y"), talk("b", "y"), False),
    ],
)
def test_the_question_counts_and_no_space_does(one, other, same):
    assert find_duplicates([one], {"test": [other]})["test"].count == same


def test_the_first_is_named_with_both_places(tmp_path):
    for name, inputs in {"train": "abc", "ood": "xcb"}.items():
        lines = (f'{{"input": "{letter}", "target": "y"}}\n' for letter in inputs)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    training, ood = (read_records(tmp_path / f"{name}.jsonl") for name in ("train", "ood"))
    found = find_duplicates(training, {"ood": ood, "iid": [Record("z", "x")], "none": []})
    assert str(found["ood"]) == (
        "2 of 3 records of ood also stand in the training data, the first as "
        f"{tmp_path}/ood.jsonl, line 2 and {tmp_path}/train.jsonl, line 3"
    )
    assert str(found["iid"]) == "0 of 1 records of iid also stand in the training data"
    assert (found["none"].count, found["none"].records) == (0, 0)


def test_records_without_a_place_are_numbered():
    found = find_duplicates([talk("q", "x"), talk("a", "x")], {"t": [talk("a", "y")]})["t"]
    assert found.first == ("record 1", "record 2")


def test_published_sets_that_hold_their_training_rows(shared):
    """Counted here by exact text."""
    folder = shared / "data/cat_reference/SVAMP"
    training, ood = (read_records(folder / f"svamp_{name}.jsonl") for name in ("train", "ood"))
    found = find_duplicates(training, {"ood": ood})["ood"]
    inputs = {" ".join(record.input.split()) for record in training}
    assert found.count == sum(" ".join(record.input.split()) in inputs for record in ood) > 500
