"""A task made of files: which records are in which split, and what is refused."""

import dataclasses

import pytest

from cat_jax.compare.setup import RESERVED, setup_comparison
from cat_jax.config import Scratch, Training
from cat_jax.data.conversations import Conversation, Message
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.data.sources import write_records
from cat_jax.errors import InputError
from cat_jax.tasks import files, stg
from cat_jax.train.workdir import json_settings


@pytest.fixture
def make_file(tmp_path):
    def make(name, *words):
        records = [Record(f"Word: {word} Answer: ", word) for word in words or ("a",)]
        write_records(tmp_path / name, records)
        return str(tmp_path / name)

    return make


def targets(task, split, seed=0):
    return [record.target for record in task.records(split, seed)]


def test_test_files_are_named_by_their_stems(make_file):
    paths = {name: make_file(f"{name}.jsonl", name) for name in ("t", "iid_1", "x", "my.set")}
    task = files(
        train=paths["t"],
        iid=paths["iid_1"],
        ood=paths["x"],
        test_files=(paths["my.set"], paths["t"]),
    )
    assert task.splits == ("train", "iid", "ood")
    assert task.test_splits == ("iid", "ood", "my.set", "t")
    assert [targets(task, name) for name in ("train", *task.test_splits)] == [
        ["t"],
        ["iid_1"],
        ["x"],
        ["my.set"],
        ["t"],
    ]


def test_splits_without_a_file_are_not_there(make_file):
    task = files(train=make_file("t.jsonl"))
    assert (task.splits, task.test_splits) == (("train",), ())
    with pytest.raises(InputError, match=r"task files has no split 'iid'; there are train$"):
        task.records("iid")


def test_generated_data_take_test_files_too(make_file):
    task = stg(test_files=(make_file("mine.jsonl", "b"),))
    assert task.test_splits == ("iid", "ood", "mine")
    assert targets(task, "mine") == ["b"]


@pytest.mark.parametrize("names", [["ood.jsonl"], ["a.jsonl", "a.json"]])
@pytest.mark.parametrize("make_task", [stg, files])
def test_two_test_sets_of_one_name_are_refused(make_file, names, make_task):
    own = {"train": make_file("t"), "ood": make_file("o")} if make_task is files else {}
    task = make_task(test_files=tuple(map(make_file, names)), **own)
    message = r"two test sets are named '(ood|a)'; rename .*" + names[-1]
    with pytest.raises(InputError, match=message):
        _ = task.test_splits
    with pytest.raises(InputError, match=message):
        task.records("iid")


@pytest.mark.parametrize("name", RESERVED)
def test_names_of_other_entries_of_the_report_are_refused(make_file, name):
    task = stg(test_files=(make_file(f"{name}.jsonl"),))
    with pytest.raises(InputError, match=rf"data\.test_files: '{name}' means something else"):
        setup_comparison(Scratch(), task, [], None, Training(), 0)


@pytest.mark.parametrize("split", ["train", "validation", "iid", "ood", "test_files"])
@pytest.mark.parametrize(
    ("name", "message"), [("empty", "holds no records"), ("missing", "cannot read")]
)
def test_files_without_records_or_missing_are_refused(make_file, tmp_path, split, name, message):
    fields = ("train", "validation", "iid", "ood")
    task = files(**{field: make_file(f"{field}.jsonl") for field in fields})
    (tmp_path / "empty.jsonl").write_text("\n\n")
    file = str(tmp_path / f"{name}.jsonl")
    value = (file,) if split == "test_files" else file
    task = dataclasses.replace(task, **{split: value})
    with pytest.raises(InputError, match=message) as caught:
        task.records(name if split == "test_files" else split)
    assert file in str(caught.value)


def test_a_validation_file(make_file):
    task = files(train=make_file("t.jsonl", "a", "b"), validation=make_file("v.jsonl", "c"))
    assert task.splits == ("train", "validation")
    assert task.test_splits == ()
    assert (targets(task, "train"), targets(task, "validation")) == (["a", "b"], ["c"])


def test_records_set_aside_for_validation(make_file):
    words = [str(n) for n in range(11)]
    task = files(train=make_file("t.jsonl", *words), validation_share=0.25)
    assert task.splits == ("train", "validation")
    kept, aside = (targets(task, split, 3) for split in ("train", "validation"))
    assert len(aside) == 3
    assert sorted(kept + aside, key=int) == words
    assert kept == sorted(kept, key=int)  # in the order of the file
    assert (kept, aside) == (targets(task, "train", 3), targets(task, "validation", 3))
    assert len({tuple(targets(task, "validation", seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("share", [0.01, 0.99])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_share_that_leaves_nothing_on_one_side(make_file, share, split):
    task = files(train=make_file("t.jsonl", "a", "b", "c"), validation_share=share)
    with pytest.raises(InputError, match=rf"{share} of 3 records sets [03] of them aside"):
        task.records(split)


def test_test_files_alone_are_a_task(make_file):
    task = files(ood=make_file("o.jsonl", "a"), test_files=(make_file("more.jsonl", "b"),))
    assert (task.splits, task.test_splits) == (("ood",), ("ood", "more"))
    assert targets(task, "more") == ["b"]
    for ask in (lambda: task.records("train"), task.training_data):
        with pytest.raises(InputError, match="files has no split 'train'; there are ood, more"):
            ask()
    with pytest.raises(InputError, match=r"is a share of data\.train, which names no file"):
        files(validation_share=0.1)


def test_settings_that_contradict():
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="validation_share must be at least 0 and less than 1"):
            files(train="a", validation_share=share)
    with pytest.raises(InputError, match="give one of them"):
        files(train="a", validation="b", validation_share=0.5)


def test_nobody_knows_more_about_ones_own_records():
    task = files(train="a", iid="b", ood="c")
    note = Annotation(Span("b"), (Span("Weight: 1"),))
    record = Record("Weight: 1, Clothing size: 1, Hormones: 0, Yellow fingers: 3 ", "b", (note,))
    assert task.spurious_spans(record) == []
    assert len(stg().spurious_spans(record)) == 3
    assert (
        task.spurious_spans(Conversation((Message("user", "a"), Message("assistant", "b")))) == []
    )
    assert (task.interventions, task.reference_rules()) == ({}, {})
    assert task.as_published() == task


def test_template_options_reach_every_file_and_are_kept(tmp_path):
    words = Message("user", "Word: a"), Message("assistant", "a")
    for name in ("t", "v", "x"):
        write_records(tmp_path / f"{name}.jsonl", [Conversation(words)])
    train, validation, other = (str(tmp_path / f"{name}.jsonl") for name in "tvx")
    options = {"date": "2026-02-03", "enable_thinking": False}
    task = files(train=train, validation=validation, test_files=(other,), template_options=options)
    for split in ("train", "validation", "x"):
        (record,) = task.records(split)
        assert record == Conversation(words, template_options=options)
    assert json_settings(data=task)["data"]["template_options"] == options
    with pytest.raises(InputError, match="write a date as YYYY-MM-DD"):
        files(train=train, template_options={"date": "today"})
