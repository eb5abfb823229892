"""Prepared shards that cannot be used, and preparations that cannot be made."""

import json

import pytest
from harness import contents, one_sentence

from cat_jax.data.shards import prepare_data
from cat_jax.testing import toy_tokenizer


@pytest.fixture
def shards(commands, records):
    prepare_data(records, commands.folder / "shards", toy_tokenizer(), max_length=19)
    return commands.folder / "shards"


def change_manifest(shards, change):
    values = json.loads((shards / "manifest.json").read_text())
    change(values)
    (shards / "manifest.json").write_text(json.dumps(values))


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


DAMAGES = {
    "another tokenizer": (
        lambda s: change_manifest(s, lambda m: m["preparation"].update(tokenizer="0")),
        "made with another tokenizer",
    ),
    "another template": (
        lambda s: change_manifest(s, lambda m: m["preparation"].update(template="0")),
        "made with another chat template",
    ),
    "a newer manifest": (
        lambda s: change_manifest(s, lambda m: m.update(version=9)),
        "has version 9, this package reads 2",
    ),
    "a torn manifest": (lambda s: cut(s / "manifest.json"), "manifest.json is not valid JSON"),
    "a torn shard": (lambda s: cut(s / "shard-00000.array_record"), "missing or torn"),
    "no manifest": (lambda s: (s / "manifest.json").unlink(), "holds prepared shards"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_shards(commands, shards, damage):
    apply, says = DAMAGES[damage]
    apply(shards)
    said = commands.finetune("--data.train", shards)
    assert says in said
    assert str(shards) in said


def test_shards_where_records_are_needed(commands, shards):
    assert "no texts" in commands.finetune("--data.iid", shards)
    said = commands.finetune("--data.train", shards, "--data.validation-share", "0.5")
    assert "data.validation_share" in said
    given = ("--data.train", "shards", "--data.iid", "shards", "--model.name", commands.model)
    assert "no texts" in commands("compare", "own_data", *given, "--data.ood", "shards")


@pytest.fixture
def prepare(commands):
    def prepare(*arguments, model=commands.model):
        return commands("prepare_data", *arguments, "--model.name", model)

    return prepare


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("none.jsonl", "out"), "none.jsonl"),
        (("train.jsonl", "train.jsonl"), "train.jsonl is a file; name a folder for the shards"),
        (("train.jsonl", "."), "holds other files; choose a new folder"),
        (("train.jsonl", "out", "--train.max-length", "3"), "9 records exceed 3 tokens"),
        (("train.jsonl", "out", "--train.match", "rough"), "train.match"),
        (("train.jsonl", "out", "--records-per-shard", "0"), "records"),
        (("train.jsonl", "out", "--workers", "3"), "--workers are processes of --runner"),
        (("train.jsonl", "out", "--runner-options", "a=1"), "--runner-options are of a --runner"),
        (("train.jsonl", "out", "--runner", "DirectRunner"), "pip install 'cat-jax[beam]'"),
        (("train.jsonl", "out", "--columns", "input=question"), "no column 'question'"),
        (("train.jsonl", "shards", "--train.max-length", "20"), "with another max_length"),
        (("shards", "out"), "holds prepared shards"),
        (("bad.jsonl", "out"), "bad.jsonl, line 2"),
    ],
)
def test_preparations(commands, shards, prepare, arguments, says):
    commands.write("bad.jsonl", '{"input": "a", "target": "b"}\n{"input": "a"}\n')
    assert says in prepare(*arguments)


def test_a_preparation_without_a_tokenizer(prepare):
    assert "nowhere" in prepare("train.jsonl", "out", model="nowhere")


def test_a_bad_record_leaves_what_the_next_try_goes_on_with(commands):
    lines = ['{"input": "a", "target": "b"}'] * 9
    commands.write("bad.jsonl", "\n".join([*lines, '{"input": "a"}']))
    given = ("bad.jsonl", "out", "--model.name", commands.model, "--records-per-shard", "4")
    status, said = commands.run("prepare_data", *given)
    assert status == 2
    assert "bad.jsonl, line 10" in one_sentence(said)
    left = contents(commands.folder / "out")
    assert "manifest.json" not in left
    commands.write("bad.jsonl", "\n".join(lines))
    assert commands.run("prepare_data", *given)[0] == 0
    whole = contents(commands.folder / "out")
    assert whole["shard-00001.array_record"] == left["shard-00001.array_record"]
