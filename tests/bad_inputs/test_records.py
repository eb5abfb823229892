"""Files of records that cannot be read: the file, the line, the field."""

import gzip
import json
import os

import pytest
import zstandard

GOOD = '{"input": "a=3 b=3 a is ", "target": "3"}'
ANSWER = {"role": "assistant", "content": "3"}
QUESTION = {"role": "user", "content": "a=3 b=3 a is "}
WRONG = (None, True, [], {}, [1], {"a": 1}, "")
"""Values that no text field may have."""


EMPTY = ({"": ["a"]}, {" ": ["a"]}, {"y": []}, {"y": [""]}, {"y": ["a", "\n"]})
"""Annotations whose effect, cause or list of causes is empty."""

UNMATCHED = '{"input": "a=3 b=3 a is ", "target": "3", "important": [{"3": ["4"]}]}'
BACKWARD = '{"input": "a=3 b=4 a is ", "target": "3", "important": [{"b": ["is"]}]}'

FILES = {
    "missing": ("none.jsonl", None),
    "a folder": ("folder", None),
    "empty": ("empty.jsonl", ""),
    "blank lines": ("blank.jsonl", "\n \n\t\n"),
    "binary": ("binary.jsonl", bytes(range(256))),
    "UTF-16": ("utf16.jsonl", GOOD.encode("utf-16")),
    "Latin-1": ("latin.jsonl", '{"input": "é", "target": "3"}'.encode("latin-1")),
    "truncated": ("cut.jsonl", GOOD[:-4]),
    "an array over lines": ("array.jsonl", f"[\n{GOOD},\n{GOOD}\n]"),
    "JSON that is cut": ("cut.json", f"[\n{GOOD},"),
    "JSON lines in JSON": ("lines.json", f"{GOOD}\n{GOOD}"),
    "JSON without a list": ("none.json", '{"a": 3}'),
    "JSON with two lists": ("two.json", '{"a": [], "b": []}'),
    "a number in JSON": ("three.json", "3"),
    "numbers in JSON": ("numbers.json", "[3, 4]"),
    "two objects a line": ("two.jsonl", GOOD + GOOD),
    "ragged CSV": ("ragged.csv", "input,target\na,b\na,b,c\n"),
    "ragged TSV": ("ragged.tsv", "input\ttarget\na\n"),
    "CSV without names": ("names.csv", ",target\na,b\n"),
    "CSV with a name twice": ("twice.csv", "input,target,input\na,b,c\n"),
    "CSV of other columns": ("other.csv", "question,answer\na,b\n"),
    "an empty cell": ("cell.csv", "input,target\na,\n"),
    "broken quotes": ("quotes.csv", 'input,target\n"a"b,c\n'),
    "an open quote": ("open.csv", 'input,target\n"a,c\n'),
    "a list that is no JSON": ("list.csv", "input,target,important\na,b,[\n"),
    "only names": ("only.csv", "input,target\n"),
    "no Parquet": ("no.parquet", "PAR1 and more PAR1"),
    "an empty Parquet": ("empty.parquet", ""),
    "a folder as Parquet": ("none.parquet", None),
    "Parquet in gzip": ("a.parquet.gz", gzip.compress(b"PAR1")),
    "no gzip": ("no.jsonl.gz", GOOD),
    "a gzip that is cut": ("cut.jsonl.gz", gzip.compress(GOOD.encode() * 99)[:-9]),
    "no zst": ("no.csv.zst", GOOD),
    "a zst that is cut": ("cut.jsonl.zst", zstandard.compress(GOOD.encode() * 99)[:-3]),
    "no ending": ("records", GOOD),
    "no network": ("hub:openai/gsm8k:main:train", None),
    "a hub name without a split": ("hub:openai/gsm8k", None),
    "a hub name of nothing": ("hub::", None),
    "no such data set of tfds": ("tfds:nothing/such:train", None),
    "a tfds name without a split": ("tfds:nothing", None),
    "a split of no folder": ("nowhere:train", None),
    "YAML": ("a.yaml", "- input: a\n  target: b\n"),
    "NUL": ("nul.jsonl", GOOD + "\n\0"),
    "NUL bytes": ("nul2.jsonl", "\0" * 99),
    "NaN": ("nan.jsonl", '{"input": "a", "target": NaN}'),
    "single quotes": ("single.jsonl", "{'input': 'a', 'target': 'b'}"),
    "a name with NUL": ("a\0b.jsonl", None),
    "a name that is too long": ("x" * 300, None),
    "an empty name": ("", None),
}
OPTIONS = ("--data.train", "--data.validation", "--data.iid", "--data.ood", "--data.test-files")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", FILES)
def test_files(commands, kind, option):
    name, content = FILES[kind]
    if kind == "a folder":
        commands.write(name, None)
    elif content is not None:
        commands.write(name, content)
    said = commands.finetune(option, name)
    shown = name.partition("\0")[0][:40] or option.removeprefix("--data.test-files")
    assert shown in said


def items():
    """One good record, one wrong value in its place."""
    for field in ("input", "target"):
        for value in WRONG:
            if not (field == "input" and value == ""):
                yield field, {"input": "a=3 ", "target": "3"} | {field: value}
    for value in WRONG:
        yield "text", {"text": value}
        yield "messages", {"messages": value}
        yield "content", {"messages": [QUESTION, ANSWER | {"content": value}]}
        if value != "":  # a template may take it
            yield "role", {"messages": [QUESTION | {"role": value}, ANSWER]}
    yield "important", {"input": "a=3 ", "target": "3", "imporant": []}
    yield "target", {"input": "a=3 "}
    yield "input", {"target": "3"}
    yield "input", {}
    yield "messages", {"messages": [QUESTION]}
    yield "role", {"messages": [{"content": "a"}, ANSWER]}
    yield "tool_calls", {"messages": [QUESTION, ANSWER | {"tool_calls": [1]}]}
    yield "text", {"text": "a", "input": "b", "target": "c"}
    yield "fields of the formats text and Alpaca", {"instruction": "a", "output": "b", "text": "c"}
    yield "the fields are question, answer", {"question": "a", "answer": "b"}
    yield "has the format Alpaca, but", {"instruction": "a", "output": "b"}
    yield "completion", {"prompt": "a", "chosen": "b", "rejected": "c"}
    yield "completion", {"prompt": "a", "completion": [ANSWER]}
    yield "prompt", {"prompt": [QUESTION], "completion": "a"}
    yield "history", {"instruction": "a", "output": "b", "history": [["c", "d"]]}
    yield "from", {"conversations": [{"from": "function_call", "value": "f"}]}
    yield "value", {"conversations": [{"from": "human"}]}
    yield "conversations", {"conversations": {"from": "human"}}
    for part in ("a", {"type": "image_url"}, {"type": "text"}, {"text": "a"}, {}):
        yield "content", {"messages": [QUESTION | {"content": [part]}, ANSWER]}
    for more in (
        {"weight": 0.5},
        {"weight": "1"} | {"train": True},
        {"weight": True},
        {"weight": 0},
        {"train": 1},
        {"train": False},
    ):
        yield next(reversed(more)), {"messages": [QUESTION, ANSWER | more]}
    for calls in (3, "f", [{}], [{"name": 3}], [{"name": "f", "arguments": "x"}], {"name": "f"}):
        yield "tool_calls", {"messages": [QUESTION, ANSWER | {"tool_calls": calls}]}
    yield "tool_calls", {"messages": [QUESTION | {"tool_calls": [{"name": "f"}]}, ANSWER]}
    for tools in (3, "f", ["f"], [{}], {"name": "f"}):
        yield "tools", {"messages": [QUESTION, ANSWER], "tools": tools}
    yield "chat_template_kwargs", {"messages": [QUESTION, ANSWER], "chat_template_kwargs": 3}
    yield "date", {"messages": [QUESTION, ANSWER], "chat_template_kwargs": {"date": "today"}}
    for value in (3, "3", [3], [{}], {"3": [None]}, [{"3": [[]]}], *EMPTY):
        yield "important", {"input": "a=x ", "target": "y", "important": value}
    for span in (
        {"text": "a", "start": -1},
        {"text": "a", "start": 1},
        {"text": "a", "start": 99},
        {"text": "a", "start": 0.5},
        {"text": "a", "start": "0"},
        {"text": "a", "message": 0},
        {"text": "a", "start": 10**30},
        {"start": 0},
        {"text": "a", "begin": 0},
        True,
    ):
        yield "important", {"input": "a=3 ", "target": "3", "important": [{"3": [span]}]}


LINES = [(field, json.dumps(item)) for field, item in items()]
RAW = [
    ("input", '{"input": "\\ud800", "target": "3"}'),
    ("target", '{"input": "a", "target": "\\udfff3"}'),
    ("text", '{"text": "a\\ud83d"}'),
    ("content", json.dumps({"messages": [QUESTION, ANSWER | {"content": "\ud800"}]})),
    ("important", '{"input": "a", "target": "b", "important": [{"b": ["\\ud800"]}]}'),
    ("input", '{"input": ' + "[" * 100_000 + "]" * 100_000 + ', "target": "3"}'),
    ("important", '{"input":"a","target":"b","important":' + '{"a":' * 30_000 + "1" + "}" * 30_001),
    (
        "start",
        '{"input":"a","target":"3","important":[{"3":[{"text":"a","start":%s}]}]}' % ("9" * 5000),
    ),
    ("target", '{"input": "a", "target": "b", "target": "c"}'),
    ("line", '["a", "b"]'),
    ("line", "3"),
    ("line", "null"),
    ("line", '"text"'),
    ("line", "9" * 5000),
    ("line", "[" * 100_000),
]


@pytest.mark.parametrize(("field", "line"), [*LINES, *RAW], ids=lambda text: text[:60])
def test_records(commands, field, line):
    file = commands.write("wrong.jsonl", f"{GOOD}\n\n{line}\n{GOOD}\n")
    said = commands.finetune("--data.train", file)
    assert f"{file}, line 3" in said
    assert field in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--data.columns", "input=question"),
            "there is no column 'question' for the field 'input'",
        ),
        (("--data.columns", "important=causes"), "no column 'causes' for the field 'important'"),
        (("--data.columns", "inptu=question"), "there is no field 'inptu'; did you mean input?"),
        (("--data.columns", "question"), "expected NAME=VALUE, not 'question'"),
        (("--data.columns", "input=a", "input=b"), "'input' is given twice"),
        (("--data.template-options", "date=today"), "'date' is 'today'; write a date as"),
        (("--data.template-options", "a-b=1"), "'a-b' is no variable of a chat template"),
        (("--data.template-options", "date=2026-01-31"), "holds no conversation, so no chat temp"),
    ],
)
def test_settings_of_records(commands, arguments, says):
    commands.write("train.jsonl", f"{GOOD}\n" * 9)
    assert says in commands.finetune(*arguments)


@pytest.mark.skipif(os.name == "nt", reason="no pipes")
def test_a_file_of_records_that_may_not_be_read(commands):
    file = commands.write("locked.jsonl", GOOD)
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    assert "locked.jsonl" in commands.finetune("--data.train", file)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD] * 9, "no training record is annotated; guidance needs the field 'important'"),
        ([UNMATCHED] * 9, "few.jsonl, line 1: cause '4'; "),
        ([BACKWARD] * 9, "every cause comes after its effect"),
        ([GOOD] * 3, "fewer than one batch of 4"),
        (['{"text": "%s"}' % ("a" * 50)] * 9, "fit in 19 tokens"),
    ],
)
def test_records_that_nothing_can_be_trained_on(commands, lines, said):
    file = commands.write("few.jsonl", "\n".join(lines))
    assert said in commands.finetune("--data.train", file, config="cat")
