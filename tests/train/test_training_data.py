"""What is said of annotated words that were not found, and where all of them are listed."""

import dataclasses
import json
import logging

import pytest
from small_runs import TRAIN, run

import cat_jax as cat
from cat_jax.data.alignment_stats import Unmatched
from cat_jax.data.sources import read_records
from cat_jax.errors import InputError
from cat_jax.testing import toy_records, toy_tokenizer
from cat_jax.train.training_data import align_training, align_validation

SHORT = dataclasses.replace(TRAIN, batch_size=2)
FOUND = {"input": "a=3 b=4 a is ", "target": "3", "important": [{"3": ["a=3"]}]}
FAULTS = [
    FOUND | {"important": [{"3": ["a=5", "b=4"]}]},
    FOUND | {"important": [{"seven": ["a=3"]}]},
    FOUND | {"important": [{"3": ["x"]}, {"4": ["b", "y"]}]},
]
UNMATCHED = [(2, "cause", "a=5"), (3, "effect", "seven"), (4, "cause", "x"), (4, "cause", "y")]


@pytest.fixture
def read(tmp_path):
    """Write dicts to a file and read them as records."""

    def read(*lines):
        file = tmp_path / "mine.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_records(file)

    return read


def align(records, train=SHORT, guided=True):
    return align_training(records, toy_tokenizer(), train, seed=0, guided=guided)


def names(said, lines):
    """Whether a sentence names the first three by file, line and words, and counts the others."""
    first = [f"mine.jsonl, line {n}: {role} {words!r}" for n, role, words in lines[:3]]
    return all(part in said for part in [*first, f"; and {len(lines) - 3} more"])


@pytest.mark.parametrize(
    "aligned", [align, lambda x: align_validation(x, toy_tokenizer(), SHORT, 0)]
)
def test_words_that_were_not_found_are_named_and_counted(read, caplog, aligned):
    with caplog.at_level(logging.WARNING, "cat_jax"):
        stats = aligned(read(FOUND, *FAULTS)).stats
    (said,) = caplog.messages
    assert said.startswith("4 of 12 annotated effects and causes were not found in their record: ")
    assert names(said, UNMATCHED)
    assert [(x.where[-1], x.role, x.words) for x in stats.unmatched] == [
        (str(line), role, words) for line, role, words in UNMATCHED
    ]
    assert stats.spans_asked - stats.spans_found == 4


def test_nothing_is_said_where_all_is_found(read, caplog):
    assert align(read(FOUND, FOUND)).stats.unmatched == ()
    assert not caplog.messages


def test_a_file_of_which_nothing_matched_is_not_said_to_lack_the_field(read):
    bare = {"input": "", "target": "a=1"}
    lines = [FOUND | {"important": [{"3": [f"a={n}"]}]} for n in (5, 6, 7, 8)]
    with pytest.raises(InputError) as caught:
        align(read(bare, *lines))
    expected = [(n + 2, "cause", f"a={number}") for n, number in enumerate((5, 6, 7, 8))]
    assert names(str(caught.value), expected)
    assert "4 of 8" in str(caught.value)
    assert "important" not in str(caught.value)
    align(read(bare, *lines), guided=False)


def test_why_nothing_can_be_guided(read):
    backward = FOUND | {"important": [{"a": ["is"]}]}
    with pytest.raises(InputError, match="every cause comes after its effect"):
        align(read(backward, backward))
    with pytest.raises(InputError, match=r"no training record is annotated; .* field 'important'"):
        align(read(*[{"input": "", "target": "a=1"}] * 2))
    long = FOUND | {"input": FOUND["input"] + 9 * " "}
    with pytest.raises(InputError, match=r"no training record is annotated \(1 too long"):
        align(read(*[{"input": "", "target": "a=1"}] * 2, long))


def test_records_without_a_file_are_named_by_number(read):
    wrong = dataclasses.replace(read(FAULTS[1])[0], where="")
    assert align([*read(FOUND), wrong]).stats.unmatched == (
        Unmatched("record 2", "effect", "seven"),
    )


def test_long_words_are_shortened(read):
    shown = str(Unmatched("mine.jsonl, line 2", "cause", "7" * 61))
    assert shown == f"mine.jsonl, line 2: cause '{'7' * 60}'..."


@pytest.mark.parametrize("guided", [True, False])
def test_all_unmatched_words_are_listed_on_request(read, tmp_path, guided):
    train = dataclasses.replace(SHORT, unmatched=str(tmp_path / "lists" / "unmatched.jsonl"))
    records = read(FOUND, FAULTS[0] | {"important": [{"3": ["没有到"]}]}, *FAULTS[1:])
    align(records, train, guided)
    text = (tmp_path / "lists" / "unmatched.jsonl").read_text(encoding="utf-8")
    assert "没有到" in text
    where = f"{tmp_path / 'mine.jsonl'}, line "
    assert [json.loads(line) for line in text.splitlines()] == [
        {"where": f"{where}{line}", "role": role, "words": words}
        for line, role, words in [(2, "cause", "没有到"), *UNMATCHED[1:]]
    ]


def test_the_list_is_written_of_a_refused_run_too(read, tmp_path):
    train = dataclasses.replace(SHORT, unmatched=str(tmp_path / "unmatched.jsonl"))
    with pytest.raises(InputError, match="no training record can be guided"):
        align(read(*FAULTS[1:2] * 2), train)
    assert len((tmp_path / "unmatched.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["", ".", "a\0b", "x" * 300, "mine.jsonl/x", "lists"])
def test_a_list_that_cannot_be_written_is_refused(read, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    records = read(FOUND, *FAULTS)
    with pytest.raises(InputError, match=r"train\.unmatched: cannot write"):
        align(records, dataclasses.replace(SHORT, unmatched=name))


def test_the_list_is_no_setting_of_the_numbers(read, tmp_path):
    records = read(FOUND, *FAULTS)
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first = run(records=records, workdir=tmp_path / "run", train=_listed(one))
    second = run(records=records, workdir=tmp_path / "run", train=_listed(two))
    assert first.history == second.history  # continued, and finished already
    assert one.read_bytes() == two.read_bytes() != b""


def _listed(path):
    return dataclasses.replace(SHORT, unmatched=str(path))


def test_a_record_of_a_script_without_spaces_is_guided():
    (record,) = cat.read_records(
        [
            {
                "input": "我的订单没有到。分类：",
                "target": "丢失",
                "important": [{"丢失": ["没有到"]}],
            }
        ]
    )
    data = align([record, record])
    assert data.stats.unmatched == ()
    (places,) = data.examples[0].causal_count.nonzero()
    assert places.tolist() == [10, 11]  # the queries that predict 丢 and 失
    assert data.examples[0].causal_count.max() == 3


def test_validation_records_of_the_training_data_are_counted(caplog):
    records = toy_records(count=23)
    with caplog.at_level(logging.WARNING, "cat_jax"):
        run(records=records, validation=[*records[:3], cat.Record("9 ", "9")])
    assert caplog.messages == [
        "3 of 4 records of validation also stand in the training data, the first as record 1 and "
        "record 1"
    ]
